"""What may be removed: incoming data and runs that nothing waits for, the oldest first.

Never what arrives, waits or runs, nor what an object comes from that a destination has not confirmed. What waits in
quarantine or apart, what faulted, and what a reader made and nobody sent, is removable only once it counts as given up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import count
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
)

from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, REMOVAL
from carina.database.one_series import is_of_series
from carina.deliver.ledger import DeliveryState
from carina.jobs.queue import JobEnd, JobState
from carina.receive.store import ArrivalState
from carina.sections import INCOMING


class KeptKind(StrEnum):
    """What a node removes as one: the files of an arrival, or the run of a job with its logs."""

    INCOMING = "incoming"
    RUN = "run"


@dataclass(frozen=True, kw_only=True)
class Removable:
    """A folder that may go: an arrival's or a job's by id, and when it was last of use.

    ``bytes`` is what came of an arrival; of a run, its folder has to be looked at, again after each ``attempt``.
    """

    kind: KeptKind
    id: int
    since: datetime
    bytes: int = 0
    attempt: int = 0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Only what was last of use before ``before``; what is given up, before ``abandoned`` (None: nothing is)."""

    before: datetime
    abandoned: datetime | None


Holds = Callable[[Connection, int, Bounds], bool]
"""Whether what a reader made in the run of a job, by its id, keeps the run and what it reads."""


def removable(
    connection: Connection, kind: KeptKind, bounds: Bounds, holds: Holds, *, only: int | None = None, at_most: int = 100
) -> Sequence[Removable]:
    """What may be removed of a kind, the oldest first; ``only`` one of them, to see whether it still may be."""
    wanted, table = (_arrivals(bounds), ARRIVAL) if kind is KeptKind.INCOMING else (_runs(bounds), JOB)
    if only is not None:
        wanted = wanted.where(table.c.id == only)
    found: list[Removable] = []
    for start in count(0, at_most):
        rows = connection.execute(wanted.limit(at_most).offset(start)).all()
        held = _held(connection, kind, [row.id for row in rows], bounds, holds)
        found += [
            Removable(kind=kind, id=row.id, since=row.since, bytes=row.bytes or 0, attempt=row.attempt)
            for row in rows
            if row.id not in held
        ]
        if len(found) >= at_most or len(rows) < at_most:
            break
    return found[:at_most]


def _held(connection: Connection, kind: KeptKind, ids: Sequence[int], bounds: Bounds, holds: Holds) -> Collection[int]:
    """Those of the arrivals or jobs that readers' work keeps."""
    if kind is KeptKind.RUN:
        return {number for number in ids if holds(connection, number, bounds)}
    reading = select(ARRIVAL.c.id, JOB.c.id.label("job_id")).join(JOB, _reads()).where(ARRIVAL.c.id.in_(ids), ~_gone())
    rows = connection.execute(reading).all()
    return {row.id for row in rows if holds(connection, row.job_id, bounds)}


def _arrivals(bounds: Bounds) -> Select[Any]:
    later = ARRIVAL.alias("later")
    coming = exists().where(
        is_of_series(ARRIVAL, later),
        later.c.source == ARRIVAL.c.source,
        later.c.id != ARRIVAL.c.id,
        later.c.state.in_([ArrivalState.ARRIVING, ArrivalState.COMPLETE]),
    )  # whose run is to be on these instances as well
    is_done = ARRIVAL.c.state.in_([ArrivalState.QUEUED, ArrivalState.KEPT])
    waits = ARRIVAL.c.state.in_([ArrivalState.QUARANTINED, ArrivalState.APART])
    size = select(func.sum(INSTANCE.c.bytes)).where(INSTANCE.c.arrival_id == ARRIVAL.c.id).scalar_subquery()
    return (
        select(ARRIVAL.c.id, ARRIVAL.c.last_at.label("since"), size.label("bytes"), literal(0).label("attempt"))
        .where(
            ARRIVAL.c.last_at < bounds.before,
            or_(is_done, and_(waits, _given_up(ARRIVAL.c.last_at, bounds))),
            ~coming,
            ~exists().where(_reads(), _is_needed(JOB, bounds)),
        )
        .order_by(ARRIVAL.c.last_at, ARRIVAL.c.id)
    )


def _runs(bounds: Bounds) -> Select[Any]:
    wanted = select(JOB.c.id, JOB.c.stopped_at.label("since"), literal(0).label("bytes"), JOB.c.attempt)
    return wanted.where(JOB.c.stopped_at < bounds.before, ~_is_needed(JOB, bounds), ~_gone()).order_by(
        JOB.c.stopped_at, JOB.c.id
    )


def _reads() -> ColumnElement[bool]:
    path = literal(f"{INCOMING}/") + cast(ARRIVAL.c.id, String)
    return or_(JOB.c.arrival_id == ARRIVAL.c.id, JOB.c.source == path)


def _gone() -> ColumnElement[bool]:
    return exists().where(REMOVAL.c.kind == KeptKind.RUN, REMOVAL.c.subject_id == JOB.c.id)


def _is_needed(job: FromClause, bounds: Bounds) -> ColumnElement[bool]:
    """Whether a job is not over: it waits or runs, is to be tried again by hand, or its objects are on their way."""
    faulted = (job.c.ended == JobEnd.FAULTED) & ~_given_up(job.c.stopped_at, bounds)
    sending = exists().where(DELIVERY.c.job_id == job.c.id, DELIVERY.c.state != DeliveryState.CONFIRMED)
    return or_(job.c.state != JobState.STOPPED, faulted, sending)


def _given_up(at: ColumnElement[Any], bounds: Bounds) -> ColumnElement[bool]:
    return false() if bounds.abandoned is None else at < bounds.abandoned
