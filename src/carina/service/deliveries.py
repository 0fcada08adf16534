"""Looking at the delivery ledger: a page of rows by key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, func, select

from carina.database import DELIVERY
from carina.deliver.ledger import DeliveryState


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One result object on its way to one destination. Times are UTC; ``status`` is what the peer answered last."""

    id: int
    job_id: int
    destination: str
    state: str
    attempts: int
    status: int | None
    error_code: str
    error: str
    note: str
    sop_class_uid: str
    sop_instance_uid: str
    created_at: datetime
    sent_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str


def list_deliveries(
    connection: Connection,
    *,
    job_id: int | None = None,
    destination: str = "",
    state: str = "",
    before: int | None = None,
    at_most: int = 100,
) -> tuple[Delivery, ...]:
    """The latest deliveries first, those with an id below ``before``."""
    wanted = select(DELIVERY).order_by(DELIVERY.c.id.desc()).limit(at_most)
    filters = {
        DELIVERY.c.job_id: job_id,
        DELIVERY.c.destination: destination or None,
        DELIVERY.c.state: state or None,
    }
    for column, value in filters.items():
        wanted = wanted if value is None else wanted.where(column == value)
    if before is not None:
        wanted = wanted.where(DELIVERY.c.id < before)
    return tuple(_delivery(row) for row in connection.execute(wanted))


def counts_by_job(connection: Connection, ids: Sequence[int]) -> dict[int, dict[str, dict[DeliveryState, int]]]:
    """How many objects of jobs are in which state, by job and destination."""
    columns = (DELIVERY.c.job_id, DELIVERY.c.destination, DELIVERY.c.state)
    wanted = select(*columns, func.count().label("number")).where(DELIVERY.c.job_id.in_(ids)).group_by(*columns)
    found: dict[int, dict[str, dict[DeliveryState, int]]] = {}
    for row in connection.execute(wanted):
        found.setdefault(row.job_id, {}).setdefault(row.destination, {})[DeliveryState(row.state)] = row.number
    return found


def _delivery(row: Row[Any]) -> Delivery:
    values = {name: getattr(row, name) for name in Delivery.__struct_fields__}
    for name, value in values.items():
        values[name] = value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
    return Delivery(**values)
