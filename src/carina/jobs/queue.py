"""The job table: what waits, who runs it, how it ended. Every change of a job is a function here.

A job is pending, running or stopped; a stopped one is healthy, faulted or canceled. Each claim counts ``attempt`` up,
and what the runner of an attempt says is taken only while its attempt is the one that runs: a worker that was given
up and wakes changes nothing. The functions take the caller's transaction; ``now`` is the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, cast, exists, insert, literal, select, update

from carina.config import Priority
from carina.database import JOB, REMOVAL, draw_in, is_due
from carina.jobs.scan import NOTHING_SAID, KnownScan, scan_columns
from carina.sections import RUNS
from carina.web_settings import DEFAULT_PROJECT

RANKS = {Priority.IMMEDIATE: 0, Priority.HIGH: 1, Priority.NORMAL: 2, Priority.LOW: 3}
"""How priorities are stored: the queue is sorted by them."""

MOST_CRASHES = 3
"""Attempts whose process died, after which a job is stopped: it would take down the next worker too."""

CRASHED = "job.crashed"
"""Code of a job whose process died."""

CANCELED = "job.canceled"
"""The code of a job that was canceled."""

MOST_RETRIES = 8
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(hours=1)
"""How long a job waits after a failure that may pass: twice as long each time."""

LONGEST_OUTAGE_PAUSE = timedelta(minutes=1)
"""The same in an outage: soon after somebody has ended it, all runs again."""

NO_ROOM_TO_RUN = "output.disk-full"
"""Code of a run that found no room on the disk."""

RUN_HELD = "output.busy"
"""Code of a run whose folder another process still writes: that of an earlier attempt, which stood still."""


class JobState(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"


class JobEnd(StrEnum):
    """How a stopped job ended."""

    HEALTHY = "healthy"
    FAULTED = "faulted"
    CANCELED = "canceled"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A run asked for: ``source`` is the folder or file to read; ``destinations`` are names of the settings'.

    ``memory_mb`` and ``cores`` are what it is expected to need. ``supersedes`` is an earlier job on fewer instances of
    the series. ``is_prior`` is a scan that was fetched to compare a later one with. ``received_by`` is the source of
    its arrival. ``scan`` is what is known of what it runs on, None where that is to be read; lists call it by its date
    and description, or ``described``.
    """

    source: str
    pipeline: str
    memory_mb: float
    cores: float
    priority: Priority = Priority.NORMAL
    destinations: tuple[str, ...] = ()
    series_uid: str = ""
    project: str = DEFAULT_PROJECT
    arrival_id: int | None = None
    supersedes: int | None = None
    is_prior: bool = False
    received_by: str = ""
    scan: KnownScan | None = None
    described: str = ""


@dataclass(frozen=True)
class Attempt:
    """A claimed job: its number and the attempt's, which is needed to change it."""

    job_id: int
    number: int


@dataclass(frozen=True)
class Room:
    """What a worker has left: memory in MB and cores."""

    memory_mb: float
    cores: float


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed: a stable code and a sentence; ``may_pass`` where another try can help.

    ``is_outage`` where the machine is at fault, or a process that stands still, until somebody acts: then the job is
    tried however long that takes, and nothing is counted against it.
    """

    code: str
    message: str
    may_pass: bool = False
    is_outage: bool = False


def submit(connection: Connection, new: NewJob, now: datetime) -> int:
    """Put a job into the queue; gives its id."""
    return submit_all(connection, [new], now)[0]


def submit_all(connection: Connection, new: Sequence[NewJob], now: datetime) -> Sequence[int]:
    """Put jobs into the queue, at most some thousands at once; gives their ids."""
    rows = [_new_row(one, now) for one in new]
    ids = connection.execute(insert(JOB).returning(JOB.c.id, sort_by_parameter_order=True), rows).scalars().all()
    folder = literal(f"{RUNS}/") + cast(JOB.c.id, Text)
    connection.execute(update(JOB).where(JOB.c.id.in_(ids)).values(folder=folder))
    return ids


_NOT_READ = scan_columns(NOTHING_SAID, "") | {"described": None}
"""What every row has, of a job whose input is yet to be read."""


def _new_row(new: NewJob, now: datetime) -> dict[str, Any]:
    return {
        "arrival_id": new.arrival_id,
        "source": new.source,
        "series_uid": new.series_uid,
        "project": new.project,
        "pipeline": new.pipeline,
        "folder": "",
        "state": JobState.PENDING.value,
        "destinations": json.dumps(new.destinations),
        "priority": RANKS[new.priority],
        "memory_mb": new.memory_mb,
        "cores": new.cores,
        "supersedes": new.supersedes,
        "is_prior": int(new.is_prior),
        "created_at": now,
        "received_by": new.received_by,
        **(scan_columns(new.scan, new.described or new.scan.called) if new.scan else _NOT_READ),
    }


def claim(connection: Connection, worker: str, free: Room, whole: Room, now: datetime) -> tuple[Attempt, Room] | None:
    """Take the first job of the queue for a worker, with what it takes of it.

    None where nothing waits or the first one doesn't fit yet.

    Nothing passes the first, or a large job would wait for ever behind small ones. What asks for more than the
    ``whole`` worker has gets all of it, alone.
    """
    wanted = (
        select(JOB.c.id, JOB.c.memory_mb, JOB.c.cores, JOB.c.attempt)
        .where(JOB.c.state == JobState.PENDING, is_due(JOB.c.not_before, now, LONGEST_PAUSE))
        .order_by(JOB.c.priority, JOB.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    takes = Room(min(row.memory_mb, whole.memory_mb), min(row.cores, whole.cores))
    if takes.memory_mb > free.memory_mb or takes.cores > free.cores:
        return None
    taken = {"state": JobState.RUNNING, "worker": worker, "attempt": row.attempt + 1, "heartbeat_at": now}
    connection.execute(update(JOB).where(JOB.c.id == row.id).values(started_at=now, not_before=None, **taken))
    return Attempt(row.id, row.attempt + 1), takes


def _running(attempt: Attempt) -> ColumnElement[bool]:
    return (JOB.c.id == attempt.job_id) & (JOB.c.attempt == attempt.number) & (JOB.c.state == JobState.RUNNING)


def heartbeat(connection: Connection, attempts: Collection[Attempt], now: datetime) -> dict[Attempt, bool]:
    """Say that attempts are alive; gives those that still count, each with whether it is to be canceled."""
    counting = {}
    for attempt in attempts:
        alive = update(JOB).where(_running(attempt)).values(heartbeat_at=now).returning(JOB.c.cancel)
        row = connection.execute(alive).first()
        if row is not None:
            counting[attempt] = bool(row.cancel)
    return counting


def stop(connection: Connection, attempt: Attempt, end: JobEnd, now: datetime, failure: Failure | None = None) -> bool:
    """End an attempt's job; False where the attempt doesn't count any more, and then nothing is changed."""
    return bool(connection.execute(update(JOB).where(_running(attempt)).values(**_stopped(end, now, failure))).rowcount)


def stop_canceled(connection: Connection, attempt: Attempt, now: datetime) -> bool:
    """End an attempt whose job was canceled; why it was stays in its row. False as in ``stop``."""
    ended = {"state": JobState.STOPPED, "ended": JobEnd.CANCELED, "stopped_at": now, "error_code": CANCELED}
    return bool(connection.execute(update(JOB).where(_running(attempt)).values(**ended)).rowcount)


def _stopped(end: JobEnd, now: datetime, failure: Failure | None = None) -> dict[str, Any]:
    code, message = (failure.code, failure.message) if failure else ("", "")
    return {"state": JobState.STOPPED, "ended": end, "stopped_at": now, "error_code": code, "error": message}


def fail(connection: Connection, attempt: Attempt, failure: Failure, now: datetime) -> bool:
    """Let an attempt's job wait and be tried again where the failure may pass, else stop it; False as in ``stop``."""
    row = connection.execute(select(JOB.c.retries).where(_running(attempt))).first()
    if row is None:
        return False
    if not failure.may_pass or (row.retries >= MOST_RETRIES and not failure.is_outage):
        return stop(connection, attempt, JobEnd.FAULTED, now, failure)
    longest, tries = (LONGEST_OUTAGE_PAUSE, attempt.number - 1) if failure.is_outage else (LONGEST_PAUSE, row.retries)
    pause = min(FIRST_PAUSE * 2 ** min(tries, MOST_RETRIES), longest)
    retries = row.retries if failure.is_outage else row.retries + 1
    said = {"error_code": failure.code, "error": failure.message, "retries": retries}
    again = update(JOB).where(_running(attempt)).values(not_before=now + pause, **_PENDING, **said)
    return bool(connection.execute(again).rowcount)


@dataclass(frozen=True)
class AttemptEnd:
    """What the last attempt of a job failed of, empty where it didn't, and when the next may begin; None: never.

    ``ended`` is how the job is stopped, empty where it isn't.
    """

    error_code: str = ""
    again_at: datetime | None = None
    ended: str = ""


def attempt_end(connection: Connection, attempt: Attempt) -> AttemptEnd:
    """How an attempt ended, where its job has had no other since."""
    one = (JOB.c.id == attempt.job_id) & (JOB.c.attempt == attempt.number)
    row = connection.execute(select(JOB.c.error_code, JOB.c.state, JOB.c.not_before, JOB.c.ended).where(one)).first()
    if row is None:
        return AttemptEnd()
    return AttemptEnd(row.error_code, row.not_before if row.state == JobState.PENDING else None, row.ended)


_PENDING: dict[str, Any] = {"state": JobState.PENDING, "worker": "", "heartbeat_at": None}


def give_back(connection: Connection, attempt: Attempt, not_before: datetime | None = None) -> bool:
    """Put an attempt's job back into the queue, since its worker ends: nothing is counted against it."""
    waits = update(JOB).where(_running(attempt)).values(not_before=not_before, **_PENDING)
    return bool(connection.execute(waits).rowcount)


def crashed(connection: Connection, attempt: Attempt, how: str, now: datetime) -> bool:
    """Say that an attempt's process died: its job waits again, or is stopped where that happened too often."""
    row = connection.execute(select(JOB.c.crashes).where(_running(attempt))).first()
    if row is None:
        return False
    times = row.crashes + 1
    failure = Failure(CRASHED, f"its process died {times} times, the last time {how}: see the job's log.")
    if times < MOST_CRASHES:
        changed = update(JOB).where(_running(attempt)).values(crashes=times, not_before=now + FIRST_PAUSE, **_PENDING)
    else:
        changed = update(JOB).where(_running(attempt)).values(crashes=times, **_stopped(JobEnd.FAULTED, now, failure))
    return bool(connection.execute(changed).rowcount)


def count_from_now(connection: Connection, now: datetime) -> None:
    """Let attempts that were last heard of in the future, before the clock was set back, be heard of now at the latest.

    Their workers are not given up at once, since most of them live and will be heard of soon.
    """
    draw_in(connection, JOB.c.heartbeat_at, JOB.c.state == JobState.RUNNING, now)


def silent(connection: Connection, before: datetime) -> Sequence[Attempt]:
    """The attempts that were last heard of before a time: their worker is gone, or stands still."""
    wanted = (
        select(JOB.c.id, JOB.c.attempt)
        .where(JOB.c.state == JobState.RUNNING, JOB.c.heartbeat_at < before)
        .with_for_update(skip_locked=True)
    )
    return [Attempt(row.id, row.attempt) for row in connection.execute(wanted)]


def running_on(connection: Connection, host: str) -> dict[Attempt, str]:
    """The attempts that run on a host, with the names of their workers (``HOST:PID``)."""
    wanted = select(JOB.c.id, JOB.c.attempt, JOB.c.worker).where(
        JOB.c.state == JobState.RUNNING, JOB.c.worker.startswith(f"{host}:", autoescape=True)
    )
    return {Attempt(row.id, row.attempt): row.worker for row in connection.execute(wanted)}


def cancel(connection: Connection, job_id: int, now: datetime, *, why: str = "asked for") -> bool:
    """Stop a job that waits, or ask whoever runs it to; False where it is stopped already or there is none."""
    failure = Failure(CANCELED, f"canceled: {why}.")
    one = JOB.c.id == job_id
    waiting = update(JOB).where(one, JOB.c.state == JobState.PENDING).values(**_stopped(JobEnd.CANCELED, now, failure))
    if connection.execute(waiting).rowcount:
        return True
    running = update(JOB).where(one, JOB.c.state == JobState.RUNNING).values(cancel=1, error=failure.message)
    return bool(connection.execute(running).rowcount)


_ITS_REMOVAL = ((REMOVAL.c.kind == "run") & (REMOVAL.c.subject_id == JOB.c.id)) | (
    (REMOVAL.c.kind == "incoming") & (REMOVAL.c.subject_id == JOB.c.arrival_id)
)


def retry(connection: Connection, job_id: int) -> bool:
    """Let a stopped job that isn't healthy run again, as if it were new; False where it is not one.

    One whose instances or run were removed is none.
    """
    ended = (JOB.c.id == job_id) & (JOB.c.state == JobState.STOPPED) & (JOB.c.ended != JobEnd.HEALTHY)
    ended &= ~exists().where(_ITS_REMOVAL)
    fresh = {"ended": "", "crashes": 0, "retries": 0, "cancel": 0, "error_code": "", "error": ""}
    fresh |= {"started_at": None, "stopped_at": None, "not_before": None}
    return bool(connection.execute(update(JOB).where(ended).values(**_PENDING, **fresh)).rowcount)


def removal_words(connection: Connection, job_id: int) -> str:
    """Why a job can't run again whose run or instances were removed, and what to do; empty where neither was."""
    wanted = select(REMOVAL.c.kind).join(JOB, _ITS_REMOVAL).where(JOB.c.id == job_id)
    kinds = set(connection.execute(wanted).scalars())
    if "incoming" in kinds:
        return "retention removed what came in for it: send the series again."
    if "run" in kinds:
        return "retention removed its run: run its input anew as another job (carina submit), or send the series again."
    return ""


def set_priority(connection: Connection, job_id: int, priority: Priority) -> bool:
    """Change the priority of a job that waits; False where it doesn't wait or there is none."""
    waiting = (JOB.c.id == job_id) & (JOB.c.state == JobState.PENDING)
    return bool(connection.execute(update(JOB).where(waiting).values(priority=RANKS[priority])).rowcount)
