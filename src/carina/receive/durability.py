"""Whether a file holds what its row says, and is on the disk for good.

A row reaches the disk beside its file, not after it, so that an instance costs one turn of the disk. A power cut may
leave either without the other; ``flushed`` of a row says that both are there. Where it does not, the file is looked at.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Row, exc, select

from carina.database import INSTANCE, OwnFolder, read_only
from carina.database.intact import chunks_of, holds_data_set
from carina.pipeline.places import free_place
from carina.sections import SET_ASIDE

DATABASE_FAILS = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
"""A database that is full, locked, or gone."""

_LOG = logging.getLogger(__name__)


def flush_folder(folder: Path) -> None:
    """Put what a folder lists on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_back(folder: Path, engine: Engine, file: Path) -> None:
    """Remove a file that no row names; where the database can't be asked, it may have kept the row, and all stays."""
    named = select(INSTANCE.c.id).where(INSTANCE.c.path == file.relative_to(folder).as_posix())
    with suppress(*DATABASE_FAILS), read_only(engine) as connection:
        if connection.execute(named).first() is None:
            file.unlink(missing_ok=True)


def empty_folder(own: OwnFolder, place: Path) -> Path:
    """The folder of an arrival whose row was just begun, with nothing in it.

    A process that was killed before its row was kept leaves its folder, and SQLite gives the number again: what lies
    there is set aside.

    Raises:
        FolderAway: the node's folder is not there.
        OSError: it can't be made, or what lies there not be moved.
    """
    folder = own.make(place)
    put_away(folder, own.folder / SET_ASIDE)
    return folder


def put_away(place: Path, folder: Path, only: Sequence[Path] = ()) -> None:
    """Move what no row explains out of the way: the database is older than its folder, or a process was killed.

    Of what lies in a place it is all, or those files ``only``.
    """
    files = list(only) or [file for file in place.iterdir() if file.is_file()]
    if not files:
        return
    aside = free_place(folder / place.name)
    aside.mkdir(parents=True)
    for file in files:
        file.replace(aside / file.name)
    words = "1 file" if len(files) == 1 else f"{len(files)} files"
    _LOG.warning("%s of an arrival that the database doesn't know: moved to %s", words, aside)


def assure(folder: Path, row: Row[Any]) -> bool:
    """Put the file of an instance's row on the disk for good, whatever was before; False where it isn't whole.

    Its bytes are written over themselves: after a flush that failed, the system takes for written what it could not
    write, and another flush alone would say that all is well.
    """
    file = folder / row.path
    try:
        with file.open("r+b") as stream:
            if not holds_data_set(stream, row):
                return False
            for start, chunk in chunks_of(stream, 0):
                stream.seek(start)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except FileNotFoundError:
        return False
    for one in (file.parent, file.parent.parent):
        flush_folder(one)
    return True
