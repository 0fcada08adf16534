"""What waits for a destination that the settings have no more: it goes on waiting, and says so."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, update

from carina.database import DELIVERY
from carina.deliver.ledger import UNDER_WAY, DeliveryState, counts

NO_DESTINATION = "delivery.unknown-destination"


def note_stranded(connection: Connection, known: Collection[str]) -> Mapping[str, int]:
    """Say in the rows that wait for any other destination than the ``known`` ones why they do; gives how many do.

    They are due once the settings have the destination again.
    """
    found = {
        name: sum(by_state[state] for state in UNDER_WAY)
        for name, by_state in counts(connection).items()
        if name not in known
    }
    stranded = {name: number for name, number in found.items() if number}
    for name in stranded:
        its = (DELIVERY.c.destination == name, DELIVERY.c.state == DeliveryState.WAITING)
        said = f"the settings have no destination {name} any more: add it under [destinations]."
        values = {"error_code": NO_DESTINATION, "error": said, "not_before": None}
        connection.execute(update(DELIVERY).where(*its).values(**values))
    return stranded


def stranded_words(name: str, number: int) -> str:
    """That they wait, in a sentence."""
    where = f"destination {name}, which the settings don't have"
    return f"{number} object(s) wait for {where}: add it under [destinations]."
