"""Whether a file holds what its row says, and is on the disk for good.

A row reaches the disk beside its file, not after it, so that an instance costs one turn of the disk. A power cut may
leave either without the other; ``flushed`` of a row says that both are there. Where it does not, the file is looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Engine, Row, exc, select

from carina.database import INSTANCE, read_only

FILE_BEGINS = b"\x00" * 128 + b"DICM"
"""The preamble and prefix that we write (PS3.10 7.1)."""

DATABASE_FAILS = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)
"""A database that is full, locked, or gone."""

_AT_ONCE = 1 << 20


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


def assure(folder: Path, row: Row[Any]) -> bool:
    """Put the file of an instance's row on the disk for good, whatever was before; False where it isn't whole.

    Its bytes are written over themselves: after a flush that failed, the system takes for written what it could not
    write, and another flush alone would say that all is well.
    """
    file = folder / row.path
    try:
        with file.open("r+b") as stream:
            if not _is_whole(stream, row):
                return False
            for start, chunk in _chunks(stream, 0):
                stream.seek(start)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    except FileNotFoundError:
        return False
    for one in (file.parent, file.parent.parent):
        flush_folder(one)
    return True


def _is_whole(stream: BinaryIO, row: Row[Any]) -> bool:
    """Whether a file ends with the data set whose digest is known.

    What is before it, at most 470 bytes, shares the disk's smallest piece with the data set's first bytes.
    """
    start = os.fstat(stream.fileno()).st_size - row.bytes
    if start < len(FILE_BEGINS) or stream.read(len(FILE_BEGINS)) != FILE_BEGINS:
        return False
    digest = hashlib.sha256()
    for _, chunk in _chunks(stream, start):
        digest.update(chunk)
    return bool(digest.hexdigest() == row.sha256)


def _chunks(stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """A stream's bytes from ``start`` on, with where each piece begins."""
    while True:
        stream.seek(start)
        chunk = stream.read(_AT_ONCE)
        if not chunk:
            return
        yield start, chunk
        start += len(chunk)
