"""Objects of destinations that the settings don't have: they are in the ledger, and wait until the name is back.

What kinds such a destination takes is not known, so that all kinds wait; what it doesn't take leaves the ledger when
the settings have it again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, delete, select, update

from carina.config import Destination
from carina.database import DELIVERY
from carina.deliver.ledger import UNDER_WAY, DeliveryState, enter, takes_kind

STRANDED = "delivery.unknown-destination"
"""Code of rows whose destination the settings don't have."""


def stranded_words(name: str) -> str:
    """Why a row waits that goes to such a destination, and what to do."""
    return f"{name} is not in the settings: put it back, or carina deliveries rename {name} NEW."


def enter_for_all(
    connection: Connection,
    job_id: int,
    destinations: Mapping[str, Destination | None],
    files: Sequence[Path],
    *,
    folder: Path,
    now: datetime,
) -> int:
    """As ``ledger.enter``, for every destination that a job names: None where the settings don't have it.

    Raises:
        OSError: a file can't be read.
        InvalidDicomError: one is no DICOM file.
    """
    number = enter(connection, job_id, destinations, files, folder=folder, now=now)
    strand(connection, [name for name, known in destinations.items() if known is None], job_id=job_id)
    return number


def strand(connection: Connection, names: Collection[str], *, job_id: int | None = None) -> None:
    """Say in the rows of destinations that the settings don't have that they wait for that: of all jobs, or of one."""
    for name in names:
        rows = (DELIVERY.c.destination == name) & DELIVERY.c.state.in_(UNDER_WAY)
        if job_id is not None:
            rows &= DELIVERY.c.job_id == job_id
        said = {"error_code": STRANDED, "error": stranded_words(name), "not_before": None}
        connection.execute(update(DELIVERY).where(rows).values(**said))


def unstrand(connection: Connection, name: str, destination: Destination) -> None:
    """The settings have a destination (again): what waited for that is due, and what it doesn't take leaves the ledger.

    What was begun to be sent stays, whichever kind it is: the peer may have it.
    """
    rows = (DELIVERY.c.destination == name) & DELIVERY.c.state.in_(UNDER_WAY) & (DELIVERY.c.error_code == STRANDED)
    classes = connection.execute(select(DELIVERY.c.sop_class_uid).where(rows).distinct()).scalars().all()
    if not classes:
        return
    refused = [one for one in classes if not takes_kind(destination, one)]
    unsent = (DELIVERY.c.state == DeliveryState.WAITING) & (DELIVERY.c.attempts == 0)
    connection.execute(delete(DELIVERY).where(rows, unsent, DELIVERY.c.sop_class_uid.in_(refused)))
    connection.execute(update(DELIVERY).where(rows).values(error_code="", error=""))
