"""What an error says of the machine below the node: a disk that is full or not mounted, a database that is away.

It is no fault of Carina's nor of what was being done, lasts until somebody acts, and ends without a restart. Every part
of the node tells it in the same sentence, tries until it is over, and tells that too.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from carina.database.engine import is_away
from carina.errors import DATABASE_DAMAGED, FULL, BadConfig, CarinaError, LastingTrouble, no_space, one_line, told

DISK_FULL, NO_DATABASE, FOLDER_AWAY = "node.disk-full", "node.database-away", "node.folder-away"
OTHER_DATABASE = "node.other-database"
"""Their codes."""

ANOTHER = "another database than the node's own is in its place, or an empty one"
"""What a connection says that is to another database than the node was started with."""


class FolderAway(BadConfig):
    """A folder that is not the database's: the file system that it lies on may not be mounted, or not yet."""


_LOG = logging.getLogger(__name__)

LASTS_S = 60.0
"""An outage that was not met for so long lasts no more, though nothing has gone well since."""

_FIGURES = re.compile(r"[0-9]+(\.[0-9]+)?")


def outage_of(error: BaseException, folder: Path | str) -> CarinaError | None:
    """An error as trouble of the machine's; None where it is something else.

    ``folder`` is where the part that met it writes: the system says of few errors which file they are about.
    """
    if isinstance(error, FolderAway):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        return _full(Path(named).parent if named else Path(folder), error)
    cause = getattr(error, "orig", error)
    if isinstance(cause, sqlite3.Error) and _code(cause) == sqlite3.SQLITE_FULL:
        return _full(Path(folder), OSError())
    if is_away(error):
        reason = one_line(str(cause)).strip()
        if reason == ANOTHER:
            return BadConfig(OTHER_DATABASE, f"{ANOTHER}: bring its own back, or stop the node.")
        return BadConfig(NO_DATABASE, f"the database can't be used ({reason}).")
    return None


def damage_of(error: BaseException) -> CarinaError | None:
    """An error as damage of the node's own SQLite, which lasts until somebody stops the node; None where it is none."""
    failure = told(error) if isinstance(error, Exception) else None
    return failure if failure is not None and failure.code == DATABASE_DAMAGED else None


def _full(folder: Path, error: OSError) -> CarinaError:
    """That a folder takes no more; how much is free there, of which a quota may leave nothing."""
    left, remedy = no_space(error)
    try:
        free = f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free)"
    except OSError:
        free = ""
    words = f"{folder}: no space is left there{left}{free}: {remedy}."
    return BadConfig(DISK_FULL, words)


def _code(error: sqlite3.Error) -> int:
    """The primary result code."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


class Outages:
    """Tells in the log what outages a part of the node meets: when one begins, now and then while it lasts, its end.

    ``who`` begins each line, ``folder`` is as in ``outage_of``. Threads may share it.
    """

    def __init__(self, who: str, folder: Path | str, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.who, self.folder = who, folder
        self._trouble, self._one_at_a_time = LastingTrouble(clock_s), threading.Lock()
        self._clock_s, self._last, self._met_s = clock_s, "", 0.0
        self._damage = ""

    @property
    def lasting(self) -> str:
        """The outage that lasts now, in the words of the log; else empty. Damage lasts while the process does."""
        with self._one_at_a_time:
            return self._damage or (self._last if self._clock_s() - self._met_s < LASTS_S else "")

    def met(self, error: BaseException) -> CarinaError | None:
        """What an error is as an outage, which is told; None where it is none.

        Of the node's folder ``OwnFolder`` tells, once for all parts.
        """
        outage = outage_of(error, self.folder) or damage_of(error)
        if outage is not None and not isinstance(outage, FolderAway):
            self.tell(outage)
        return outage

    def tell(self, outage: CarinaError) -> None:
        """Say it, unless it was said lately: how much is free, and which port it was, makes it no other."""
        with self._one_at_a_time:
            self._last, self._met_s = f"{self.who}: {outage.message}", self._clock_s()
            if outage.code == DATABASE_DAMAGED:
                self._damage = self._last
            is_news = self._trouble.is_news(_FIGURES.sub("#", outage.message))
        if is_news:
            ends = "" if outage.code == DATABASE_DAMAGED else " It resumes by itself when that is over."
            _LOG.warning("%s: %s%s", self.who, outage.message, ends)

    def is_over(self) -> bool:
        """Say that what was told is over, where something was, and give whether: it went well this time.

        Of a damaged database that says nothing: another page of it was read.
        """
        with self._one_at_a_time:
            self._last = ""
            if self._damage:
                return False
            after = self._trouble.over()
        if after:
            _LOG.info("%s: works again %s.", self.who, after)
        return bool(after)
