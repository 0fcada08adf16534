"""An object that its peer said it stored and has not: sent again after longer and longer waits, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, update

from carina.database import DELIVERY
from carina.deliver.ledger import Entry, Trouble, mark_absent, mark_failed
from carina.deliver.pace import Pace

MOST_LOSSES = 300
"""After so many the delivery has failed: with the waits of a node, about a day."""


def mark_lost(connection: Connection, entry: Entry, now: datetime, pace: Pace, trouble: Trouble) -> None:
    """The peer has not what it said it stored: sent once more after a wait, or the end of it; ``trouble`` is how."""
    this = update(DELIVERY).where(DELIVERY.c.id == entry.id)
    lost = this.values(lost=DELIVERY.c.lost + 1).returning(DELIVERY.c.lost)
    count = int(connection.execute(lost).scalar_one())
    if count < MOST_LOSSES:
        mark_absent(connection, [entry.id], now + pace.after(max(count, entry.attempts)), trouble)
        return
    connection.execute(this.values(contradicted=0, lost=0, refused=0))
    seen = f"{entry.destination} said {count} times that it stored the object, and has it not ({trouble.words})"
    how = "see what becomes of it there, then resend; it is asked first"
    mark_failed(connection, [entry.id], replace(trouble, words=f"{seen}: {how}."))
