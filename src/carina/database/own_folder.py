"""A node's folder while the node runs: its disk may be taken away, and an empty folder be in its place.

What is seen there then says nothing of what was accepted, and what is written there is found by nobody. Whoever judges
by the folder's files writes that in ``OwnFolder.begin``, and whoever begins something in it makes its place by
``OwnFolder.make``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from carina.database.engine import read_only
from carina.database.outage import FOLDER_AWAY, FolderAway, Outages
from carina.database.tables import IDENTITY

IDENTITY_FILE = "node.id"


class OwnFolder:
    """The folder of a database; it is known by the identity that both hold, wherever it is mounted.

    With ``who``, the log says in a line that begins so when it is found away, and when it is back.
    """

    def __init__(self, folder: Path, engine: Engine, who: str = "") -> None:
        self.folder, self.engine = folder, engine
        self._identity = ""
        self._who, self._outages = who, Outages(who, folder)
        self._telling = threading.Lock()

    def is_there(self) -> bool:
        """Whether it is there; of a database without an identity, or that is away, it is taken for granted."""
        try:
            ours = self._ours()
        except SQLAlchemyError:
            return True
        is_own = not ours or identity_in(self.folder) == ours
        if self._who:
            self._tell(is_own=is_own)
        return is_own

    def _tell(self, *, is_own: bool) -> None:
        """Say when it has gone and when it is back, each time: it is no trouble that comes and goes."""
        with self._telling:
            if not is_own:
                self._outages.tell(FolderAway(self.away.code, f"{self.folder}: {self.away.message}"))
            elif self._outages.is_over():
                self._outages = Outages(self._who, self.folder)

    def check(self) -> None:
        """See that it is there.

        Raises:
            FolderAway: it is not.
        """
        if not self.is_there():
            raise self.away

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction on what was seen or made in the folder: nothing of it counts where that is not there.

        Raises:
            FolderAway: it is not, at the beginning or at the end.
        """
        self.check()
        with self.engine.begin() as connection:
            yield connection
            self.check()

    def make(self, name: str | Path) -> Path:
        """A folder of that name below it, with those above: in the node's own folder, never in one in its place.

        Raises:
            FolderAway: it is not there.
            OSError: it can't be made.
            SQLAlchemyError: the database, which knows its identity, is away.
        """
        if not (ours := self._ours()):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            return self.folder / name
        try:
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise self.away from None
        try:
            if _said_in(handle) != ours:
                raise self.away
            for one in (*reversed(Path(name).parents[:-1]), Path(name)):
                with suppress(FileExistsError):
                    os.mkdir(one, dir_fd=handle)
        finally:
            os.close(handle)
        return self.folder / name

    @property
    def away(self) -> FolderAway:
        """What is said where it is not there; where it was, is for the log."""
        words = f"the node's folder is not there (no {IDENTITY_FILE} of its own): is its disk mounted?"
        return FolderAway(FOLDER_AWAY, f"{words} What needs it waits.")

    def _ours(self) -> str:
        if not self._identity:
            with read_only(self.engine) as connection:
                self._identity = database_identity(connection)
        return self._identity


def is_there(folder: Path, connection: Connection) -> bool:
    """Whether a folder is that of a database, as ``OwnFolder.is_there``."""
    ours = database_identity(connection)
    return not ours or identity_in(folder) == ours


def identity_in(folder: Path) -> str:
    """The identity of the database that a folder was kept with; empty where it says nothing or can't be read."""
    try:
        return (folder / IDENTITY_FILE).read_text().strip()
    except (OSError, ValueError):
        return ""


def _said_in(handle: int) -> str:
    """The same of an open folder, whatever its path leads to by now."""
    try:
        with os.fdopen(os.open(IDENTITY_FILE, os.O_RDONLY, dir_fd=handle)) as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def database_identity(connection: Connection) -> str:
    """A database's identity; empty before a folder was given it, and of an earlier version."""
    if not inspect(connection).has_table(IDENTITY.name):
        return ""
    return connection.execute(select(IDENTITY.c.uuid)).scalar() or ""
