"""What has come of one upload: a file on the disk for each of its files, and in memory how many bytes of which.

A part is called ``NAME.BYTES.part`` after the bytes of it that are on the disk for good: a chunk is appended and
flushed, and then the part is renamed, so that what a killed server left half-written lies behind the bytes that count,
and is written over.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from carina.pipeline.places import flush, make_below

_PART = re.compile(r"(?P<name>.+)\.(?P<bytes>\d{1,15})\.part")


class UploadParts:
    """The parts of an upload below a folder; ``writing`` is held by whoever changes them, or their upload.

    The disk is read once: what it says is kept in memory until a change fails. Nothing is changed while it is not
    kept, so that whoever only looks need not wait for a change.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writing = threading.Lock()
        self._knowing = threading.Lock()
        self._known: dict[str, int] | None = None
        self._bytes = 0

    def sizes(self) -> dict[str, int]:
        """How many bytes of each file are there, by name."""
        with self._knowing:
            return dict(self._read())

    def total(self) -> tuple[int, int]:
        """How many files have begun to come, and how many bytes have come."""
        with self._knowing:
            return len(self._read()), self._bytes

    def size(self, name: str) -> int | None:
        """How many bytes of a file are there; None: it has not begun to come."""
        with self._knowing:
            return self._read().get(name)

    def place(self, name: str, size: int) -> Path:
        """Where a file is that has come so far."""
        path = PurePosixPath(name)
        return self.folder / path.parent / f"{path.name}.{size}.part"

    def append(self, name: str, chunk: bytes) -> int:
        """Append to a file, on the disk for good; gives how many bytes of it are there then.

        Raises:
            OSError: the disk does not take it; what was there before is there still.
        """
        there = self.size(name)
        before, size = self.place(name, there or 0), (there or 0) + len(chunk)
        is_there = False
        try:
            make_below(self.folder, before.parent)
            _append(before, there, chunk)
            before.rename(self.place(name, size))
            flush(before.parent)
            is_there = True
        finally:
            if not is_there:
                self.forget()  # the disk may have it or not
        with self._knowing:
            self._read()[name] = size
            self._bytes += len(chunk)
        return size

    def forget(self) -> None:
        """Read the disk again when something is asked next."""
        with self._knowing:
            self._known, self._bytes = None, 0

    def _read(self) -> dict[str, int]:
        if self._known is None:
            self._known = dict(_below(self.folder))
            self._bytes = sum(self._known.values())
        return self._known


def _append(path: Path, there: int | None, chunk: bytes) -> None:
    with path.open("wb" if there is None else "r+b") as file:
        file.seek(there or 0)
        file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _below(parts: Path) -> Iterator[tuple[str, int]]:
    for path in parts.rglob("*"):
        found = _PART.fullmatch(path.name)
        if found and path.is_file():
            yield (path.relative_to(parts).parent / found["name"]).as_posix(), int(found["bytes"])
