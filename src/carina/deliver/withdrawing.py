"""Objects that are not to be sent after all: what nobody has begun to send leaves the ledger."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, delete

from carina.database import DELIVERY
from carina.deliver.ledger import DeliveryState


def withdraw(connection: Connection, job_id: int, file: Path, *, folder: Path) -> tuple[str, ...]:
    """Take a job's object out of the ledger where nobody has begun to send it; gives the destinations it waited for.

    ``file`` lies below the node's ``folder``. What a destination has, or may have, stays as it stands.
    """
    same = (DELIVERY.c.job_id == job_id) & (DELIVERY.c.path == file.relative_to(folder).as_posix())
    is_unbegun = (DELIVERY.c.state == DeliveryState.WAITING) & (DELIVERY.c.attempts == 0)
    gone = connection.execute(delete(DELIVERY).where(same, is_unbegun).returning(DELIVERY.c.destination))
    return tuple(sorted(gone.scalars()))
