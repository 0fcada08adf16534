"""The node's own SQLite copied into a backup, and what SQLite finds wrong with it: disks fail under databases, too.

A damaged one is saved as it is, since it may be all there is, and the backup says so.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote_from_bytes

from sqlalchemy import Connection, create_engine

from carina.database import outage_of
from carina.errors import one_line

_LONGEST_REASON = 300


def copy_database(file: Path, to: Path) -> str:
    """Copy it in one step, while it is used; gives what is wrong with it, empty where nothing is.

    A file that SQLite takes for none of its own is copied byte by byte.

    Raises:
        sqlite3.Error: it can't be copied now: the disk is full or fails, or others have it for too long.
    """
    try:
        with (
            closing(sqlite3.connect(_address(file, "mode=rw"), uri=True, timeout=30)) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy)  # in one step: no write of the node's gets in between
    except sqlite3.DatabaseError as error:
        if outage_of(error, to.parent) is not None:
            raise
        shutil.copyfile(file, to)
        return said_by_database(error)
    return damage_in(to)


def damage_in(database: Path) -> str:
    """The first that SQLite finds wrong with a file that nobody writes; empty where nothing is."""
    try:
        with closing(sqlite3.connect(immutable_address(database), uri=True)) as plain:
            found = [str(row[0]) for row in plain.execute("PRAGMA integrity_check(1)")]
    except sqlite3.DatabaseError as error:
        return said_by_database(error)
    return "" if found == ["ok"] else _short(found[0] if found else "no check of it")


def immutable_address(database: Path) -> str:
    """An address by which nothing is written, neither into the file nor beside it."""
    return _address(database, "mode=ro&immutable=1")


@contextmanager
def unwritten(database: Path) -> Iterator[Connection]:
    """A connection that writes nothing, neither into the file nor beside it."""
    address = immutable_address(database)
    engine = create_engine("sqlite://", creator=partial(sqlite3.connect, address, uri=True, check_same_thread=False))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def said_by_database(error: Exception) -> str:
    """What a database said, in one line."""
    return _short(str(getattr(error, "orig", None) or error))


def _short(said: str) -> str:
    return one_line(said).strip()[:_LONGEST_REASON]


def _address(file: Path, mode: str) -> str:
    return f"file:{quote_from_bytes(os.fsencode(file.absolute()))}?{mode}"
