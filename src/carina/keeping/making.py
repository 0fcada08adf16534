"""A folder that is filled beside its place and takes it when it is whole: of a backup, or of a restored node.

``PLACE.part`` belongs to who holds the lock on ``PLACE.part.lock``, which the system lets go of when a process is
killed. What is noted in that file tells a rest of ours, which is removed, from a folder that somebody else made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carina import __version__
from carina.errors import BadConfig


def part_and_lock(place: Path) -> tuple[Path, Path]:
    """Where the folder for a place is filled, and the file whose lock its maker holds."""
    return place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.part.lock")


@contextmanager
def making(place: Path, kind: str) -> Iterator[Path]:
    """An empty folder beside its place, for its user alone and for one at a time; what is left of it at the end goes.

    Raises:
        BadConfig: another is being made for this place, or what lies there is not ours.
        OSError: it can't be made.
    """
    part, lock = part_and_lock(place)
    handle = _claim(place, lock, kind)
    try:
        if os.fstat(handle).st_size:
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
        _make(part, kind)
        try:
            os.pwrite(handle, f"carina {__version__}: {kind} to {place.name}\n".encode(errors="replace"), 0)
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        if not (os.fstat(handle).st_size and os.path.lexists(part)):  # else the next one knows it by this file
            lock.unlink(missing_ok=True)
        os.close(handle)


def _make(part: Path, kind: str) -> None:
    try:
        part.mkdir(mode=0o700)
    except FileExistsError as error:
        words = "is there already, and is not known to be the rest of a backup or restore: move it away or remove it"
        raise BadConfig(f"{kind}.part", f"{part}: {words}.") from error


def _claim(place: Path, lock: Path, kind: str) -> int:
    """The lock's file, held; where a file system has no locks, whoever makes that file holds it."""
    while True:
        try:
            handle, is_new = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), True
        except FileExistsError:
            try:
                handle, is_new = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), False
            except FileNotFoundError:  # its holder has just ended
                continue
        is_ours = False
        try:
            _hold(handle, place, lock, kind, is_new=is_new)
            is_ours = _is_at(lock, handle)  # else its holder has removed it meanwhile
        finally:
            if not is_ours:
                os.close(handle)
        if is_ours:
            return handle


def _hold(handle: int, place: Path, lock: Path, kind: str, *, is_new: bool) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        words = "another backup or restore to this folder is under way: wait until it has ended, or choose another"
        raise BadConfig(f"{kind}.under-way", f"{place}: {words}.") from error
    except OSError as error:
        if not is_new:
            words = (
                "a backup or restore to this folder is under way or was broken off, and the file system has no locks"
            )
            raise BadConfig(f"{kind}.under-way", f"{place}: {words}: if none is, remove {lock}.") from error


def _is_at(lock: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False
