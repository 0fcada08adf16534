"""A database of any version, or an empty one, brought to the schema of this program."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, inspect, text

SCHEMA_VERSION = "0012"
"""The version of `tables`: the last of the migrations."""

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
        if schema_version(connection) != SCHEMA_VERSION:
            from carina.database.migrate import migrate

            migrate(connection)


def schema_version(connection: Connection) -> str | None:
    """The version that a database says it has, as Alembic keeps it; None of an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("select version_num from alembic_version")).scalar()
    return version
