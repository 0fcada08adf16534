"""A database of any version, or an empty one, brought to the schema of this program."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from carina.errors import BadConfig

_UPGRADING = 0x0CA71_4A
"""The advisory lock of PostgreSQL under which one process upgrades while the others wait; any number, but one."""


def upgrade_schema(engine: Engine) -> None:
    """Make the tables of the node, or bring those of an earlier version to today's; what is in them stays.

    All of it is one transaction, and several processes may do it at once.

    Raises:
        BadConfig: the database is of a later version than this program.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})
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
