"""The reports on storage commitment that the node owes, as the database keeps them until they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from carina.database import OWED_REPORT, database_now, draw_in
from carina.receive.commitment import CommitmentRequest, Reference

GIVEN_UP_H = 24.0
"""How long a report is tried."""

_TRIED = timedelta(hours=GIVEN_UP_H)
_REFERENCES = msgspec.json.Decoder(tuple[Reference, ...])
_REASONS = msgspec.json.Decoder(list[int | None])


@dataclass(frozen=True, kw_only=True)
class Owed:
    """A report that is owed; ``reasons`` are those of its instances, None: they were not looked at yet."""

    id: int
    request: CommitmentRequest
    reasons: list[int | None] | None
    is_tried: bool


def add_owed(connection: Connection, destination: str, request: CommitmentRequest) -> None:
    """Keep what a peer asked for, to be tried from now on."""
    row = {
        "destination": destination,
        "project": request.project,
        "transaction_uid": request.transaction_uid,
        "asked": msgspec.json.encode(request.references).decode(),
        "instances": len(request.references),
        "tried_until": database_now(connection) + _TRIED,
    }
    connection.execute(insert(OWED_REPORT), row)


def size_of_owed(connection: Connection, destination: str) -> tuple[int, int]:
    """How many reports a destination is owed, and how many instances they name together."""
    counted = select(func.count(), func.coalesce(func.sum(OWED_REPORT.c.instances), 0))
    requests, instances = connection.execute(counted.where(OWED_REPORT.c.destination == destination)).one()
    return requests, instances


def numbers_owed(connection: Connection) -> dict[str, int]:
    """How many reports are owed, by destination."""
    wanted = select(OWED_REPORT.c.destination, func.count()).group_by(OWED_REPORT.c.destination)
    return {name: number for name, number in connection.execute(wanted.order_by(OWED_REPORT.c.destination))}


def end_outdated(connection: Connection) -> dict[str, int]:
    """Give up what was tried long enough, or would have been: how many reports, by destination."""
    is_over = OWED_REPORT.c.tried_until <= database_now(connection)
    wanted = select(OWED_REPORT.c.destination, func.count()).where(is_over).group_by(OWED_REPORT.c.destination)
    found = {name: number for name, number in connection.execute(wanted)}
    connection.execute(delete(OWED_REPORT).where(is_over))
    return found


def next_owed(connection: Connection, destination: str, last: int) -> Owed | None:
    """The report to be tried after that with the id ``last``, in turn; None where none is owed.

    Where the clock was set back, it is tried for a day from now, and no longer.
    """
    own = OWED_REPORT.c.destination == destination
    draw_in(connection, OWED_REPORT.c.tried_until, own, database_now(connection) + _TRIED)
    first = select(OWED_REPORT).where(own).order_by(OWED_REPORT.c.id).limit(1)
    row = connection.execute(first.where(OWED_REPORT.c.id > last)).first() or connection.execute(first).first()
    if row is None:
        return None
    request = CommitmentRequest(
        transaction_uid=row.transaction_uid, references=_REFERENCES.decode(row.asked), project=row.project
    )
    reasons = _REASONS.decode(row.reasons) if row.reasons else None
    return Owed(id=row.id, request=request, reasons=reasons, is_tried=bool(row.is_tried))


def keep_reasons(connection: Connection, owed: Owed, reasons: Sequence[int | None]) -> None:
    """Write down what was found of the instances, so that they are looked at once."""
    values = {"reasons": msgspec.json.encode(reasons).decode()}
    connection.execute(update(OWED_REPORT).where(OWED_REPORT.c.id == owed.id).values(values))


def end_owed(connection: Connection, owed: Owed) -> None:
    """A report is sent, or given up."""
    connection.execute(delete(OWED_REPORT).where(OWED_REPORT.c.id == owed.id))


def try_later(connection: Connection, owed: Owed) -> bool:
    """Let a report that did not reach its destination wait; False where its time is over: then it is given up."""
    has_time = (OWED_REPORT.c.id == owed.id) & (OWED_REPORT.c.tried_until > database_now(connection))
    if connection.execute(update(OWED_REPORT).where(has_time).values(is_tried=1)).rowcount:
        return True
    end_owed(connection, owed)
    return False
