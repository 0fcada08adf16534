"""Wishes for earlier scans: when each is settled, and what came of it.

Once all that was fetched was run, the report on what changed is made in a process of its own (``jobs.compare``).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, select, update

from carina.config import Settings
from carina.database import ARRIVAL, JOB, PRIOR, PRIOR_SERIES, OwnFolder, PriorState, database_now
from carina.jobs.earlier import earlier_scans
from carina.jobs.listing import find_job
from carina.jobs.queue import JobEnd, JobState

ON_ITS_WAY = timedelta(hours=1)
"""What was asked for and hasn't come after so long doesn't come."""

LONGEST_WAIT = timedelta(days=7)
"""For jobs of low priority on a node that never rests."""

LOOKED_AT = 200

MADE_WITHIN_S = 600.0

Make = Callable[[Settings, int], str]
"""Has the report of a job made; gives why that failed, empty where it didn't."""


def make_report(settings: Settings, job_id: int) -> str:
    """Have a process make the report of a job, and end the wish; why that failed, empty where it didn't."""
    command = [sys.executable, "-m", "carina.jobs.compare", str(job_id)]
    given = msgspec.json.encode(settings) + b"\n"
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=MADE_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its process {'took too long' if isinstance(error, subprocess.TimeoutExpired) else 'did not start'}"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"its process ended with {done.returncode}")


class Wishes:
    """Ends wishes for earlier scans, those of ``LOOKED_AT`` at a time: many may wait for long."""

    def __init__(self, settings: Settings, engine: Engine, make: Make = make_report) -> None:
        self.settings, self.engine, self.make = settings, engine, make
        self._own = OwnFolder(Path(settings.node.folder), engine)
        self._last = 0

    def round(self) -> int:
        """End those of the next wishes whose jobs have all ended; gives their number.

        Raises:
            FolderAway: the node's folder is not there any more, and a report could not be made for that.
        """
        with self.engine.connect() as connection:
            now = database_now(connection)
            waiting = select(PRIOR).where(PRIOR.c.state == PriorState.FETCHED, PRIOR.c.id > self._last)
            wishes = connection.execute(waiting.order_by(PRIOR.c.id).limit(LOOKED_AT)).all()
            settled = [wish for wish in wishes if _is_settled(connection, wish, now)]
        self._last = wishes[-1].id if len(wishes) == LOOKED_AT else 0
        for wish in settled:
            self._settle(wish, now)
        return len(settled)

    def _settle(self, wish: Row[Any], now: datetime) -> None:
        with self.engine.connect() as connection:
            is_compared = _can_be_compared(connection, wish.job_id)
            why_not = "" if is_compared else _why_not(connection, wish)
        if is_compared and (failed := self.make(self.settings, wish.job_id)):
            why_not = f"The report on what changed could not be made: {failed}"
        if why_not or not is_compared:
            with self._own.begin() as connection:
                end_wish(connection, wish.job_id, f"{wish.said} {why_not}".strip(), now)


def _can_be_compared(connection: Connection, job_id: int) -> bool:
    job = find_job(connection, job_id)
    return job is not None and job.ended == JobEnd.HEALTHY and bool(earlier_scans(connection, job_id))


def _is_settled(connection: Connection, wish: Row[Any], now: datetime) -> bool:
    """Whether the job has ended and nothing more can come that it is to be compared with."""
    job = find_job(connection, wish.job_id)
    if job is None or job.state != JobState.STOPPED:
        return False
    if now > wish.created_at + LONGEST_WAIT:
        return True
    uids = _series_of(connection, wish)
    arrivals = connection.execute(select(ARRIVAL.c.series_uid, ARRIVAL.c.state).where(_came_as(wish, uids))).all()
    is_missing = bool(set(uids) - {one.series_uid for one in arrivals}) and now < wish.created_at + ON_ITS_WAY
    if is_missing or any(one.state in ("arriving", "complete") for one in arrivals):
        return False
    under_way = select(JOB.c.id).join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id).where(_came_as(wish, uids))
    return connection.execute(under_way.where(JOB.c.state != JobState.STOPPED).limit(1)).first() is None


def _series_of(connection: Connection, wish: Row[Any]) -> Sequence[str]:
    wanted = select(PRIOR_SERIES.c.series_uid).where(PRIOR_SERIES.c.prior_id == wish.id)
    return connection.execute(wanted).scalars().all()


def _came_as(wish: Row[Any], uids: Sequence[str]) -> ColumnElement[bool]:
    """Arrivals of some series by the source of the wish's job."""
    own = select(ARRIVAL.c.source).join(JOB, JOB.c.arrival_id == ARRIVAL.c.id).where(JOB.c.id == wish.job_id)
    return ARRIVAL.c.series_uid.in_(uids) & (ARRIVAL.c.source == own.scalar_subquery())


def _why_not(connection: Connection, wish: Row[Any]) -> str:
    """Why nothing is compared although something was fetched; empty where nothing was, which is said already."""
    uids = _series_of(connection, wish)
    if not uids:
        return ""
    job = find_job(connection, wish.job_id)
    if job is None or job.ended != JobEnd.HEALTHY:
        return "This scan's own run is not healthy, so nothing is compared."
    arrivals = connection.execute(select(ARRIVAL.c.id, ARRIVAL.c.reason).where(_came_as(wish, uids))).all()
    failed = select(JOB.c.error).where(JOB.c.arrival_id.in_([one.id for one in arrivals]), JOB.c.error != "")
    whys = [*(one.reason for one in arrivals if one.reason), *connection.execute(failed).scalars()]
    return f"Nothing could be compared: {whys[0] if whys else 'no earlier scan of the same patient was run.'}"


def end_wish(connection: Connection, job_id: int, said: str, now: datetime) -> None:
    """Say that all of a job's wish is settled, and what came of it."""
    ended = {"state": PriorState.ENDED, "said": said, "ended_at": now}
    connection.execute(update(PRIOR).where(PRIOR.c.job_id == job_id).values(**ended))
