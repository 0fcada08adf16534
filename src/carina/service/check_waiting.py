"""What a node's database holds that settings don't provide for any more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from carina.config import Settings
from carina.database import open_database, read_only
from carina.errors import BadConfig
from carina.jobs.places import DATABASE, check_beside, database_address
from carina.jobs.waiting_for import unknown_destinations


def waiting_remarks(settings: Settings) -> Iterable[str]:
    """What waits for destinations that the settings don't have; nothing where there is no database of today's yet."""
    if not settings.node.database and not (Path(settings.node.folder) / DATABASE).is_file():
        return ()
    try:
        check_beside(settings)  # another user's look would leave files beside the database
        engine = open_database(database_address(settings))
        try:
            with read_only(engine) as connection:
                return unknown_destinations(connection, settings.destinations).values()
        finally:
            engine.dispose()
    except (BadConfig, SQLAlchemyError):  # what is wrong with it is told as a mistake, or when the node starts
        return ()
