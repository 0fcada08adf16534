"""A database of any version, or an empty one, brought to the schema of this program.

Alembic is loaded where there is something to migrate: it takes 8 MB of a server.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from carina.errors import BadConfig

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

SCHEMA_VERSION = "0026"
"""The version of `tables`: the last of the migrations."""

_UPGRADING = 0x0CA71_4A
"""The advisory lock of PostgreSQL under which one process upgrades while the others wait; any number, but one."""

_SCRIPTS = str(Path(__file__).parent / "migrations").replace("%", "%%")


def upgrade_schema(engine: Engine) -> None:
    """Make the tables of the node, or bring those of an earlier version to today's; what is in them stays.

    All of it is one transaction, and several processes may do it at once.

    Raises:
        BadConfig: the database is of a later version than this program.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})
        if (found := schema_version(connection)) != SCHEMA_VERSION:
            _migrate(connection, found)


def make_schema(engine: Engine, version: str) -> None:
    """Make the tables of an earlier version, or of today's, in an empty database."""
    from alembic import command

    with engine.begin() as connection:
        command.upgrade(migrations(connection), version)


def known_versions() -> frozenset[str]:
    """The versions that a database may have had until today."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    return frozenset(script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


def check_version(connection: Connection) -> bool:
    """Whether a database is of today's version; one of an earlier version, or an empty one, is brought to it.

    Raises:
        BadConfig: it is of a later version than this program.
    """
    found = schema_version(connection)
    if found is not None and found != SCHEMA_VERSION:
        from alembic.script import ScriptDirectory

        _check_known(found, ScriptDirectory.from_config(migrations(connection)))
    return found == SCHEMA_VERSION


def schema_version(connection: Connection) -> str | None:
    """The version that a database says it has, as Alembic keeps it; None of an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("select version_num from alembic_version")).scalar()
    return version


def migrations(connection: Connection) -> Config:
    """The migrations as Alembic's commands take them, on a connection of the caller's."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection, found: str | None) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = migrations(connection)
    if found is not None:
        _check_known(found, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def _check_known(version: str, scripts: ScriptDirectory) -> None:
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise BadConfig(
            "database.later",
            f"the node's database has version {version}, this program knows up to {SCHEMA_VERSION}: use the Carina "
            "that made it, or a later one.",
        )
