"""A file to which records are appended, each on the disk before anybody is told so; what a crash tore is left out.

A record is a line: the CRC-32 of its JSON in eight hexadecimal digits, a space, the JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar
from zlib import crc32

import msgspec
from filelock import FileLock

from carina.errors import BadConfig, unwritable
from carina.pipeline.json_text import as_json, read_json

Kept = TypeVar("Kept", bound=msgspec.Struct)

_LOCK_S = 30.0
"""Longer than any other process keeps the lock, which it holds for one append."""


class Journal(Generic[Kept]):
    """The records of a file; several processes may append to it, one at a time.

    ``end`` is where the last whole record ends that this object has read or written, in bytes.
    """

    def __init__(self, path: Path, kind: type[Kept]) -> None:
        self.path = path
        self.end = 0
        self._kind = kind

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other process from appending.

        Raises:
            BadConfig: the folder can't be written.
        """
        try:
            self.path.parent.mkdir(exist_ok=True)
            lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=_LOCK_S)
            lock.acquire()
        except OSError as error:
            raise unwritable(error, self.path) from error
        try:
            yield
        finally:
            lock.release()

    def unread(self) -> list[Kept]:
        """The records that were appended since this object last looked, by whomever.

        A last line that is torn was never told to be stored, and is left out.

        Raises:
            BadConfig: ``corrections.damaged``, a record in the middle is not what was written.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.end)
                text = file.read()
        except FileNotFoundError:
            return []
        found: list[Kept] = []
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = self._understood(line)
            if record is None:
                if number < len(lines):
                    raise self._damaged(self.end)
                break
            found.append(record)
            self.end += len(line)
        return found

    def append(self, record: Kept) -> None:
        """Write a record behind the last whole one; it is on the disk when this returns. Call it while ``held``.

        Raises:
            BadConfig: ``output.disk-full`` or ``output.unwritable``; nothing was added then.
        """
        text = as_json(record)
        line = b"%08x %b\n" % (crc32(text), text)
        try:
            is_new = not self.path.exists()
            with self.path.open("r+b" if not is_new else "x+b") as file:
                file.truncate(self.end)
                file.seek(self.end)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise unwritable(error, self.path) from error
        self.end += len(line)

    def _understood(self, line: bytes) -> Kept | None:
        digest, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or digest != b"%08x" % crc32(text):
            return None
        try:
            return read_json(text, self._kind)
        except ValueError as error:
            raise self._damaged(self.end) from error

    def _damaged(self, at: int) -> BadConfig:
        return BadConfig(
            "corrections.damaged",
            f"{self.path}: the record at byte {at} is not what was written, and others follow it: bring the file back "
            "from a backup, or move it away to begin anew.",
        )


def sync_folder(folder: Path) -> None:
    """See that the names in a folder outlive a crash of the machine."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
