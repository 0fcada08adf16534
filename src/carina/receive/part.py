"""An instance on its way into a node's folder: written as it comes, counted and digested, not in its place yet.

What a sender says is on the disk as soon as it was read, so that a data set takes no memory however large it is: an
enhanced CT of a gigabyte, from each of fifty associations at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO, FileIO
from pathlib import Path

from carina.database import DISK_FULL, FolderAway, damage_of, outage_of
from carina.receive.durability import DATABASE_FAILS
from carina.receive.instance import FULL_CODE, NO_ROOM, UNWRITABLE_CODE, Announced, NotAccepted, check_uids, file_head

LOOKS_FOR_ROOM = 16_000_000
"""Bytes between two looks at how full the disk is while one data set comes in."""

IN_MEMORY = 131_072
"""Bytes of a data set that are kept in memory; of a longer one, all is in a file."""


class PartFile:
    """File meta information and the data set that is written after it; gone when it is let go, unless it was moved.

    What can't be written, or for which there is no room, is left out: ``refused`` says why. ``sha256`` and the length
    are those of the data set. ``make_room`` makes its folder, and sees that the disk has room for more.
    """

    def __init__(self, path: Path, said: Announced, make_room: Callable[[], None]) -> None:
        self.path, self.said = path, said
        self._make_room, self._looked_at = make_room, 0
        self._digest, self._size = hashlib.sha256(), 0
        self._file: FileIO | None = None
        self.refused: NotAccepted | None = None
        self.moved_to: Path | None = None
        self._trying(lambda: self._begin(said))

    def __len__(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        """The data set's digest, in hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, content: bytes | memoryview) -> None:
        """Put more of the data set after what is there."""
        self._size += len(content)
        self._trying(lambda: self._append(content))

    def flush(self) -> None:
        """Put it on the disk for good.

        Raises:
            OSError: it can't be.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())

    def let_go(self) -> None:
        """Close it, and remove it if it is still where it was."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
            self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        with suppress(OSError):
            self.let_go()

    def _begin(self, said: Announced) -> None:
        check_uids(said)
        self._make_room()
        self._file = self.path.open("xb", buffering=0)
        _write(self._file, file_head(said))

    def _append(self, content: bytes | memoryview) -> None:
        if self._file is None:
            return
        if self._size - self._looked_at > LOOKS_FOR_ROOM:
            self._looked_at = self._size
            self._make_room()
        _write(self._file, content)
        self._digest.update(content)

    def _trying(self, step: Callable[[], None]) -> None:
        if self.refused is not None:
            return
        try:
            step()
        except NotAccepted as error:
            self.refused = error
        except (OSError, FolderAway) as error:
            self.refused = unwritable_part(self.path.parent.parent.parent, error)
        if self.refused is not None:
            self.let_go()


def _write(file: FileIO, content: bytes | memoryview) -> None:
    with memoryview(content) as left:
        while left:
            left = left[file.write(left) :]


def unwritable_part(folder: Path, error: OSError | FolderAway) -> NotAccepted:
    """What a sender is told where the node's folder takes no more."""
    if isinstance(error, FolderAway):
        return NotAccepted(NO_ROOM, error.code, error.message)
    if (outage := outage_of(error, folder)) is not None:
        return NotAccepted(NO_ROOM, FULL_CODE, outage.message)
    code = FULL_CODE if error.errno == errno.EFBIG else UNWRITABLE_CODE
    return NotAccepted(NO_ROOM, code, f"{folder}: can't be written ({error.strerror or error}).")


def unwritable_row(folder: Path, error: Exception) -> NotAccepted:
    """What a sender is told where the database takes no more, or is damaged; a fault of ours is raised as it is."""
    damage = damage_of(error)
    if damage is None and not isinstance(error, DATABASE_FAILS):
        raise error
    if (outage := outage_of(error, folder) or damage) is not None:
        code = FULL_CODE if outage.code == DISK_FULL else UNWRITABLE_CODE
        return NotAccepted(NO_ROOM, code, outage.message)
    refused = getattr(error, "orig", None) or error  # its words may quote the row
    return NotAccepted(NO_ROOM, UNWRITABLE_CODE, f"the database can't be written ({type(refused).__name__}).")


class IncomingDataSet(BytesIO):
    """What pynetdicom writes a message's fragments into: in memory while it is small, then in a part.

    ``begin`` gives the part; None for what is no instance, which stays in memory.
    """

    def __init__(self, begin: Callable[[], PartFile | None]) -> None:
        super().__init__()
        self._begin: Callable[[], PartFile | None] | None = begin
        self.part: PartFile | None = None

    def write(self, fragment: bytes) -> int:  # type: ignore[override] # of bytes alone
        """Take a fragment."""
        if self._begin is not None and self.tell() + len(fragment) > IN_MEMORY:
            self.part, self._begin = self._begin(), None
            if self.part is not None:
                self.part.write(self.getvalue())
                self.seek(0)
                self.truncate()
        if self.part is None:
            return super().write(fragment)
        self.part.write(fragment)
        return len(fragment)

    def let_go(self) -> None:
        """Remove the part, unless it was moved away; what comes afterwards goes nowhere."""
        if self.part is not None:
            self.part.let_go()
