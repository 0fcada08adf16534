"""A server's database while a node runs: it may be dropped, emptied or replaced, and another one be in its place.

What is seen there then says nothing of what was accepted. Every connection is asked which database it is to, and one to
another fails as if the server were away: all parts wait, senders are told to try later, and all resumes once the node's
own is back.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError, OperationalError

from carina.database.engine import read_only
from carina.database.outage import ANOTHER
from carina.database.own_folder import database_identity
from carina.database.tables import IDENTITY

LOOKED_AT_S = 1.0
"""A connection that is used after so long is asked anew: tables can be emptied without ending it."""

_UNDEFINED = ("42P01", "3F000")
"""Codes of a table and of a schema that are not there (PostgreSQL's manual, appendix A)."""

_LOOKED = "carina_looked"


def hold_to_identity(engine: Engine) -> None:
    """Let an engine work with the database that it is connected to now, and with no other; SQLite's is one file.

    One without an identity, which was never given a folder, is not held to.
    """
    if engine.dialect.name != "postgresql":
        return
    with read_only(engine) as connection:
        ours = database_identity(connection)
    if ours:
        held = _Held(ours, engine.dialect.loaded_dbapi)
        event.listen(engine, "connect", held.on_connect)
        event.listen(engine, "checkout", held.on_checkout)
        event.listen(engine, "handle_error", held.on_error, retval=True)


class _Held:
    """Asks connections for the identity ``ours``; ``driver`` has the errors of PostgreSQL's."""

    def __init__(self, ours: str, driver: Any) -> None:
        self._ours, self._driver = ours, driver

    def on_connect(self, connection: Any, record: Any) -> None:
        if not self._is_ours(connection):
            connection.close()
            raise self._driver.OperationalError(ANOTHER)
        record.info[_LOOKED] = time.monotonic()

    def on_checkout(self, connection: Any, record: Any, _: object) -> None:
        """One that is to another now is given up, and a new one made, which fails where there is no better."""
        if time.monotonic() - record.info.get(_LOOKED, float("-inf")) < LOOKED_AT_S:
            return
        try:
            is_other = not self._is_ours(connection)
        except self._driver.Error as error:
            raise DisconnectionError(str(error)) from error
        if is_other:
            raise DisconnectionError(ANOTHER)
        record.info[_LOOKED] = time.monotonic()

    def on_error(self, context: Any) -> OperationalError | None:
        if getattr(context.original_exception, "sqlstate", None) not in _UNDEFINED:
            return None
        return OperationalError(context.statement, None, self._driver.OperationalError(ANOTHER))

    def _is_ours(self, connection: Any) -> bool:
        try:
            found = connection.execute(f"select uuid from {IDENTITY.name}").fetchone()
        except self._driver.Error as error:
            if error.sqlstate not in _UNDEFINED:
                raise
            found = None
        connection.rollback()
        return found is not None and found[0] == self._ours
