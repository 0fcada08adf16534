"""Rows of destinations that the settings lost, and of those that they have again.

What kinds such a destination takes is not known, so that all kinds wait; what it doesn't take leaves the ledger when
the settings have it again.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, delete, select, update

from carina.config import Destination
from carina.database import DELIVERY
from carina.deliver.ledger import UNDER_WAY, DeliveryState, takes_kind
from carina.deliver.unknown_destination import STRANDED, why_waiting


def strand(connection: Connection, names: Collection[str]) -> None:
    """Say in the rows of destinations that the settings don't have that they wait for that."""
    for name in names:
        rows = (DELIVERY.c.destination == name) & DELIVERY.c.state.in_(UNDER_WAY)
        connection.execute(update(DELIVERY).where(rows).values(not_before=None, **why_waiting(name, is_known=False)))


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
    connection.execute(update(DELIVERY).where(rows).values(**why_waiting(name, is_known=True)))
