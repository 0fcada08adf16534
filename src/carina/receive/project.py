"""Which project a series belongs to: the one that it was in, else that of its source."""

from __future__ import annotations

from sqlalchemy import Connection, select

from carina.database import ARRIVAL, EVERY_PROJECT
from carina.database.one_series import UnderUids, is_of_series


def project_of(connection: Connection, one: UnderUids, source: str, usual: str) -> str:
    """The project of what comes of a series from a source; ``usual`` is that of the source.

    Instances of it that came earlier are run together with it, so that all of them are in one project, also where
    somebody has moved them.
    """
    same = is_of_series(one) & (ARRIVAL.c.source == source)
    latest = select(ARRIVAL.c.project).where(same).order_by(ARRIVAL.c.id.desc()).limit(1)
    found = connection.execute(latest.execution_options(**EVERY_PROJECT)).scalar()
    return usual if found is None else str(found)
