"""The delivery ledger as people read it: rows with their times and what the peer said, and what holds jobs up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from carina.database import DELIVERY
from carina.deliver.ledger import DeliveryState

PAGE = 100


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One object on its way to one destination, as in the table; times are UTC."""

    id: int
    job_id: int
    destination: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    state: str
    attempts: int
    status: int | None
    error_code: str
    error: str
    note: str
    confirmed_by: str
    not_before: datetime | None
    created_at: datetime
    sent_at: datetime | None
    confirmed_at: datetime | None


def list_deliveries(
    connection: Connection,
    *,
    destination: str = "",
    job_id: int | None = None,
    state: str = "",
    before: int | None = None,
    at_most: int = PAGE,
) -> tuple[Delivery, ...]:
    """The rows that fit, the latest first; ``before`` is the id at which the page before ended."""
    wanted = select(DELIVERY).order_by(DELIVERY.c.id.desc()).limit(at_most)
    for column, value in (
        (DELIVERY.c.destination, destination),
        (DELIVERY.c.state, state),
        (DELIVERY.c.job_id, job_id),
    ):
        wanted = wanted if value in ("", None) else wanted.where(column == value)
    if before is not None:
        wanted = wanted.where(DELIVERY.c.id < before)
    return tuple(_delivery(row) for row in connection.execute(wanted))


def counts_by_job(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, dict[DeliveryState, int]]]:
    """How many objects of jobs are in which state, by job and destination."""
    columns = (DELIVERY.c.job_id, DELIVERY.c.destination, DELIVERY.c.state)
    wanted = select(*columns, func.count().label("number")).where(DELIVERY.c.job_id.in_(ids)).group_by(*columns)
    found: dict[int, dict[str, dict[DeliveryState, int]]] = {}
    for job, destination, state, number in connection.execute(wanted).all():
        found.setdefault(job, {}).setdefault(destination, {})[DeliveryState(state)] = number
    return found


def states_of_objects(connection: Connection, job_id: int) -> dict[str, dict[str, DeliveryState]]:
    """The state of every object of a job that was ever to be sent, by SOP Instance UID and destination."""
    wanted = select(DELIVERY).where(DELIVERY.c.job_id == job_id).order_by(DELIVERY.c.destination)
    found: dict[str, dict[str, DeliveryState]] = {}
    for row in connection.execute(wanted):
        found.setdefault(row.sop_instance_uid, {})[row.destination] = DeliveryState(row.state)
    return found


def troubles_by_job(connection: Connection, ids: Sequence[int]) -> dict[tuple[int, str], str]:
    """What was last said of objects of jobs that wait, or have failed, by job and destination."""
    if not ids:
        return {}
    columns = (DELIVERY.c.job_id, DELIVERY.c.destination, DELIVERY.c.state, DELIVERY.c.error)
    wanted = select(*columns).where(DELIVERY.c.job_id.in_(ids), DELIVERY.c.error != "").order_by(DELIVERY.c.id)
    found = connection.execute(wanted).all()  # by job alone: through the index by state all would be read that wait
    held_up = [[row for row in found if row.state == state] for state in (DeliveryState.WAITING, DeliveryState.FAILED)]
    return {(row.job_id, row.destination): row.error for rows in held_up for row in rows}  # what failed last, rather


def resting_reason(connection: Connection, destination: str) -> str:
    """Why all that waits for a destination waits; empty where nothing of it was put off since that can't be reached.

    Rows that come while a destination can't be reached wait with the others, and are not tried one by one.
    """
    code, error = _put_off_last(connection, destination)
    return error if code == "delivery.unreachable" else ""


def last_trouble(connection: Connection, destination: str) -> str:
    """The code of what was last said of what waits for a destination; empty where nothing of it was put off."""
    return _put_off_last(connection, destination)[0]


def _put_off_last(connection: Connection, destination: str) -> tuple[str, str]:
    """Code and error of what waits longest yet, empty where nothing does: through the index, of one row alone."""
    of_it = (DELIVERY.c.state == DeliveryState.WAITING, DELIVERY.c.destination == destination)
    wanted = select(DELIVERY.c.error_code, DELIVERY.c.error).where(*of_it, DELIVERY.c.not_before.is_not(None))
    row = connection.execute(wanted.order_by(DELIVERY.c.not_before.desc()).limit(1)).first()
    return ("", "") if row is None else (str(row.error_code), str(row.error))


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**{field: row._mapping[field] for field in Delivery.__struct_fields__})
