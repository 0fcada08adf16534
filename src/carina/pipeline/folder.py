"""A run's folder: opened by one process at a time, cleared of an earlier run; no file outside is ever touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from carina.errors import BadConfig, unwritable
from carina.pipeline.places import below
from carina.pipeline.trees import remove_tree

LOCK = ".lock"
"""Held while a process writes the run; what it says is void when nobody holds it."""

WRITING = ".writing"
"""Where half-written files are; what a killed run left there is removed by the next."""

MANIFEST = "manifest.json"

BOOKKEEPING = (LOCK, WRITING, MANIFEST)
"""Names in a run's folder that are the engine's own; none of them is ever a link."""


@contextmanager
def opened(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Make a run's folder, see that it can be written and has room, and keep other processes out of it.

    Raises:
        BadConfig: ``output.unwritable``, ``output.disk-full``, ``output.outside`` or ``output.busy``; a folder made for
            this is gone again.
    """
    made: list[Path] = []
    lock = FileLock(folder / LOCK)
    try:
        made = _missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_links(folder)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadConfig(
            "output.busy",
            f"{folder}: another Carina process is writing this run: wait for it, or choose another folder.",
        ) from error
    except OSError as error:
        _unmake(made)
        raise unwritable(error, folder) from error
    try:
        _make_room(folder, needed_bytes)
        yield
    finally:
        with suppress(OSError):
            remove_tree(folder / WRITING)
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        _unmake(made)


def is_being_written(folder: Path) -> bool:
    """Whether a process writes the run in a folder now: it holds the lock, which a killed one no longer does."""
    lock = FileLock(folder / LOCK)
    try:
        if not (folder / LOCK).is_file():
            return False
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # somebody else's file: only who writes the run may say that it ended
        return True
    lock.release()
    return False


def remove_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Remove files below a folder, and the folders that are empty then; gives the names that are none of its files.

    What lies outside, or is reached by a link that leads out, is left alone, as are folders and the engine's own files.
    """
    foreign = []
    for name in dict.fromkeys(names):
        path = _own_file(folder, name)
        if path is None:
            foreign.append(name)
            continue
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()
    return foreign


def _own_file(folder: Path, name: str) -> Path | None:
    """The path of a file that a run may have written; it need not be there any more."""
    try:
        path = below(folder, name)
        is_own = path.relative_to(folder).parts[0] not in BOOKKEEPING and not path.is_dir()
    except (BadConfig, OSError):
        return None
    return path if is_own else None


def _refuse_links(folder: Path) -> None:
    for name in BOOKKEEPING:
        if (folder / name).is_symlink():
            raise BadConfig(
                "output.outside", f"{folder / name}: is a link; a run writes no file through it: remove the link."
            )


def _make_room(folder: Path, needed_bytes: int) -> None:
    try:
        remove_tree(folder / WRITING)
        (folder / WRITING).mkdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(error, folder) from error
    if free < needed_bytes:
        raise BadConfig(
            "output.disk-full",
            f"{folder}: the run needs about {needed_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free: "
            "make room or choose another folder.",
        )


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _unmake(made: Iterable[Path]) -> None:
    with suppress(OSError):  # what can't be looked at was not made here, or is not empty
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
