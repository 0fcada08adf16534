"""Whether anything in the database has changed since it was last looked at, whoever changed it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from carina.database.engine import read_connection, read_only

T = TypeVar("T")

LOOK_AT_SQLITE = "pragma data_version"
LOOK_AT_POSTGRESQL = "select txid_current_snapshot()::text"


class DataVersion:
    """A value that is another one after every commit, of this process or of any other.

    What is read after a look is at least as new as the value that was seen: whoever made something of it may show it
    until they see another value. SQLite tells each connection of the commits of all others, so that one is kept for
    this alone. In PostgreSQL the value is the snapshot, which says whose commits are seen.
    """

    def __init__(self, engine: Engine, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock_s = engine, clock_s
        self._lock = Lock()
        self._kept: Connection | None = None
        self._opened = 0
        self._last: object = None
        self._looked_s = float("-inf")
        event.listen(engine, "engine_disposed", self._end)

    def now(self, at_most_old_s: float = 0.0) -> object:
        """The value, as it is now or was so many seconds ago: many who look often share one look."""
        with self._lock:
            began_s = self._clock_s()
            if began_s - self._looked_s >= at_most_old_s:
                is_sqlite = self._engine.dialect.name == "sqlite"
                self._last = self._of_sqlite() if is_sqlite else self._of_postgresql()
                self._looked_s = began_s
            return self._last

    def _of_postgresql(self) -> object:
        with read_only(self._engine) as connection:
            return connection.exec_driver_sql(LOOK_AT_POSTGRESQL).scalar_one()

    def _of_sqlite(self) -> object:
        """A number that means something to one connection alone."""
        try:
            if self._kept is None:
                self._kept = read_connection(self._engine)
                self._kept.detach()  # the pool has as many for others as before
                self._opened += 1
            found = self._kept.exec_driver_sql(LOOK_AT_SQLITE).scalar_one()
            self._kept.rollback()  # else it would go on seeing what it has seen
        except SQLAlchemyError:
            self._close()
            raise
        return self._opened, found

    def _end(self, _: Engine) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


class OfVersion(Generic[T]):
    """What was read last, and of which version of the database."""

    def __init__(self) -> None:
        self._last: tuple[object, T] | None = None

    def get(self, version: object, read: Callable[[], T]) -> T:
        """It, read again where it is not of this version; None is none that anything is of."""
        if self._last is None or version is None or self._last[0] != version:
            self._last = version, read()
        return self._last[1]
