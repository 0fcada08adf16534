"""Earlier scans of a job's patient: those that were run here, and those that are wanted from elsewhere.

``earlier_scans`` is the one place that says which scans are one patient's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, Row, exists, insert, literal, select

from carina.database import ARRIVAL, JOB, PRIOR, PRIOR_SERIES, REMOVAL, PriorState
from carina.database.one_series import is_of_series
from carina.jobs.kept import removals_of
from carina.jobs.queue import JobEnd

MOST_EARLIER = 20
"""Earlier scans that are told of, the latest ones."""


@dataclass(frozen=True, kw_only=True)
class EarlierScan:
    """A job whose run is to be compared with a later one's; ``folder`` is its run's, relative to the node's folder."""

    job_id: int
    series_uid: str
    folder: str
    studied: str

    @property
    def on(self) -> date | None:
        """The study's date; None where its digits are none."""
        try:
            return date(int(self.studied[:4]), int(self.studied[4:6]), int(self.studied[6:8]))
        except ValueError:
            return None


def earlier_scans(connection: Connection, job_id: int) -> tuple[EarlierScan, ...]:
    """The healthy jobs of the same pipeline on earlier studies of the job's patient, the latest study first.

    Where one of two studies of a day does not say when on that day, neither is earlier: its digits begin those of the
    other. They are of the job's own project: what is found goes into its report, which others read. Of several on one
    series, the latest. A job that was handed in by path has none: of its patient nothing is known.
    """
    return tuple(_latest(connection, job_id, is_removed=False).values())[:MOST_EARLIER]


def earlier_removed(connection: Connection, job_id: int) -> Mapping[EarlierScan, str]:
    """Those that would be earlier scans as well, had their runs not been removed; when and why, in a sentence."""
    kept, removed = (_latest(connection, job_id, is_removed=one) for one in (False, True))
    scans = [scan for series, scan in removed.items() if series not in kept][:MOST_EARLIER]
    said = removals_of(connection, [one.job_id for one in scans])
    return {one: said[one.job_id] for one in scans}


def _latest(connection: Connection, job_id: int, *, is_removed: bool) -> Mapping[str, EarlierScan]:
    """By series, those whose runs were removed or those whose runs were not."""
    wanted = select(JOB.c.pipeline, JOB.c.project, ARRIVAL.c.whose_sha256, ARRIVAL.c.studied, ARRIVAL.c.study_uid)
    of_job = wanted.join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id).where(JOB.c.id == job_id)
    this = connection.execute(of_job).first()
    if this is None or not this.whose_sha256 or not this.studied:
        return {}
    removal = exists().where(REMOVAL.c.kind == "run", REMOVAL.c.subject_id == JOB.c.id)
    earlier = (
        select(JOB.c.id, JOB.c.series_uid, JOB.c.folder, ARRIVAL.c.studied)
        .join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id)
        .where(ARRIVAL.c.whose_sha256 == this.whose_sha256, ARRIVAL.c.study_uid != this.study_uid)
        .where(ARRIVAL.c.studied < this.studied, ~literal(this.studied).startswith(ARRIVAL.c.studied))
        .where(JOB.c.pipeline == this.pipeline, JOB.c.project == this.project)
        .where(JOB.c.ended == JobEnd.HEALTHY, removal if is_removed else ~removal)
        .order_by(ARRIVAL.c.studied.desc(), JOB.c.id.desc())
    )
    found: dict[str, EarlierScan] = {}
    for row in connection.execute(earlier.limit(5 * MOST_EARLIER)):
        scan = EarlierScan(job_id=row.id, series_uid=row.series_uid, folder=row.folder, studied=row.studied)
        found.setdefault(row.series_uid, scan)
    return found


def want_earlier(connection: Connection, job_id: int, peer: str, now: datetime) -> None:
    """Ask for the earlier scans of a job's patient, which a destination may have."""
    row = {"job_id": job_id, "peer": peer, "state": PriorState.ASKED, "created_at": now}
    connection.execute(insert(PRIOR), row)


def is_fetched_as_prior(connection: Connection, arrival: Row[Any]) -> bool:
    """Whether an arrival is run only to be compared with: it was fetched for that, and nothing of its series was sent.

    Of a series that was sent, too, what was fetched is more instances, and all of it is run as all others are. What is
    still being sent is not waited for: it has its own arrival, which is run when it is complete.
    """
    if not arrival.is_prior:
        return False
    of_series = is_of_series(arrival) & (ARRIVAL.c.source == arrival.source)
    is_sent = of_series & (ARRIVAL.c.is_prior == 0) & (ARRIVAL.c.is_apart == 0)
    sent = select(ARRIVAL.c.id).where(is_sent, ARRIVAL.c.state != "arriving")
    if connection.execute(sent.limit(1)).first() is not None:
        return False
    wanted = (
        select(PRIOR_SERIES.c.id)
        .join(PRIOR, PRIOR.c.id == PRIOR_SERIES.c.prior_id)
        .join(JOB, JOB.c.id == PRIOR.c.job_id)
        .join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id)
        .where(PRIOR_SERIES.c.series_uid == arrival.series_uid, PRIOR_SERIES.c.is_fetched == 1)
        .where(ARRIVAL.c.source == arrival.source)
    )
    return connection.execute(wanted.limit(1)).first() is not None


def wanted_for(connection: Connection, job_id: int) -> Sequence[int]:
    """The jobs for which the scan of a job was fetched to compare with; none where it came by itself."""
    this = select(JOB.c.series_uid).where(JOB.c.id == job_id, JOB.c.is_prior == 1).scalar_subquery()
    wanted = select(PRIOR.c.job_id).join(PRIOR_SERIES, PRIOR_SERIES.c.prior_id == PRIOR.c.id)
    return connection.execute(wanted.where(PRIOR_SERIES.c.series_uid == this).order_by(PRIOR.c.job_id)).scalars().all()


def wish_of(connection: Connection, job_id: int) -> Row[Any] | None:
    """What came of the wish for earlier scans of a job's patient: a row of PRIOR; None where nothing was wished."""
    return connection.execute(select(PRIOR).where(PRIOR.c.job_id == job_id)).first()
