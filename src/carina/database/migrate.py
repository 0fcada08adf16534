"""The migrations, by Alembic, which is loaded where there is something to migrate: it takes 12 MB of a server."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from carina.errors import BadConfig


def migrate(connection: Connection) -> None:
    """Run the migrations that the database of ``connection`` lacks.

    Raises:
        BadConfig: the database is of a later version than this program.
    """
    config = migrations(connection)
    _refuse_later(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def migrations(connection: Connection) -> Config:
    """The migrations as Alembic's commands take them, on a connection of the caller's."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _refuse_later(connection: Connection, known: ScriptDirectory) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    versions = {script.revision for script in known.walk_revisions()}
    if found is not None and found not in versions:
        raise BadConfig(
            "database.later",
            f"the node's database has version {found}, this program knows up to {known.get_current_head()}: "
            "use the Carina that made it, or a later one.",
        )
