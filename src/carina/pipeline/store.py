"""A run's folder: outputs are written in the background, each file appearing whole and in one step."""

from __future__ import annotations

import errno
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from carina.errors import BadConfig
from carina.pipeline import ports
from carina.pipeline.operator import Port

LOCK = ".lock"
"""Held while a process writes the run."""

WRITING = ".writing"
"""Where half-written files are; what a killed run left there is removed by the next."""

NEARLY_FULL_BYTES = 2**26
"""With less room than this, a file that could not be written met a full disk."""

FULL = {errno.ENOSPC, errno.EDQUOT}


class Store:
    """Stores values in a run's folder, one after the other, in a thread of its own.

    One thread, in order: a value that refers to an earlier one (a scene to its volume) finds that one's files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="carina-store")
        self._known: weakref.WeakKeyDictionary[object, Future[tuple[Path, ...]]] = weakref.WeakKeyDictionary()
        self._owners: dict[Path, str] = {}
        self._lock = threading.Lock()

    def put(self, port: Port, value: object, place: str, owner: str) -> Future[tuple[Path, ...]]:
        """Store a port's value under the folder ``place``; the future gives its files, the one to open first."""
        future = self._thread.submit(self._write, port, value, place, owner)
        self._remember(value, future)
        return future

    def found(self, value: object, files: Iterable[Path]) -> None:
        """Remember the files that a value was just loaded from."""
        future: Future[tuple[Path, ...]] = Future()
        future.set_result(tuple(files))
        self._remember(value, future)

    def claim(self, files: Iterable[Path], owner: str) -> None:
        """Note the files of an earlier start, so that no other operator's output replaces them."""
        self._owners.update(dict.fromkeys(files, owner))

    def files(self, value: object) -> tuple[Path, ...]:
        """The files of a stored value, waiting for them; nothing for a value that isn't stored."""
        future = self._future(value)
        return future.result() if future else ()

    def _written(self, value: object) -> tuple[Path, ...]:
        """The files of a value that is already stored; asked in the storing thread, which can't wait for itself."""
        future = self._future(value)
        return future.result() if future and future.done() and not future.exception() else ()

    def _future(self, value: object) -> Future[tuple[Path, ...]] | None:
        try:
            with self._lock:
                return self._known.get(value)
        except TypeError:
            return None

    def close(self) -> None:
        """Wait for what is being written, and remove what is half-written."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder / WRITING, ignore_errors=True)

    def _remember(self, value: object, future: Future[tuple[Path, ...]]) -> None:
        try:
            with self._lock:
                self._known[value] = future
        except TypeError:
            return  # a plain number or text: nothing refers to its files

    def _write(self, port: Port, value: object, place: str, owner: str) -> tuple[Path, ...]:
        temporary = self.folder / WRITING / owner / place
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            written = ports.save(port.type, value, temporary, self._written)
            relative = [path.relative_to(temporary) for path in written]
            home = self._home(place, owner, relative)
            self._publish(temporary, home, relative)
            return tuple(home / path for path in relative)
        except OSError as error:
            raise storage_error(error, self.folder) from error
        except BadConfig as error:  # a library's writer can't tell a full disk from a folder that is read-only
            if shutil.disk_usage(self.folder).free < NEARLY_FULL_BYTES:
                raise _full(self.folder) from error
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _home(self, place: str, owner: str, relative: list[Path]) -> Path:
        """The folder ``place``, or one of the operator's own below it where another operator's file is in the way."""
        home = self.folder / place
        temporary = self.folder / WRITING / owner / place
        foreign = (path for path in relative if self._owners.get(home / path, owner) != owner)
        taken = any(not _is_same(temporary / path, home / path) for path in foreign)
        home = home / owner if taken else home
        self._owners.update(dict.fromkeys((home / path for path in relative), owner))
        return home

    def _publish(self, temporary: Path, home: Path, relative: list[Path]) -> None:
        for path in reversed(relative):  # the file to open appears last
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).replace(home / path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both names are links to one file, as those of a volume that two scenes share."""
    return other.exists() and one.samefile(other)


@contextmanager
def opened(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Make a run's folder, see that it can be written and has room, and keep other processes out of it.

    Raises:
        BadConfig: ``output.unwritable``, ``output.disk-full`` or ``output.busy``; a folder made here is gone again.
    """
    made = _missing(folder)
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BadConfig(
            "output.busy",
            f"{folder}: another Carina process is writing this run: wait for it, or choose another folder.",
        ) from error
    except OSError as error:
        _unmake(made)
        raise storage_error(error, folder) from error
    try:
        _check_room(folder, needed_bytes)
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        _unmake(made)


def _check_room(folder: Path, needed_bytes: int) -> None:
    try:
        shutil.rmtree(folder / WRITING, ignore_errors=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(error, folder) from error
    if free < needed_bytes:
        raise BadConfig(
            "output.disk-full",
            f"{folder}: the run needs about {needed_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free: "
            "make room or choose another folder.",
        )


def storage_error(error: OSError, folder: Path) -> BadConfig:
    """What an operating system error while writing means to the operator of the node."""
    if error.errno in FULL:
        return _full(folder)
    reason = error.strerror or str(error)
    return BadConfig("output.unwritable", f"{folder}: can't be written ({reason}): choose a folder that can.")


def _full(folder: Path) -> BadConfig:
    return BadConfig("output.disk-full", f"{folder}: no space left: make room, then run the same command again.")


def remove_outputs(folder: Path, files: Iterable[str]) -> None:
    """Remove an earlier run's files, and the folders that are empty then; other files stay."""
    for name in files:
        path = folder / name
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or not parent.is_dir() or any(parent.iterdir()):
                break
            parent.rmdir()


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _unmake(made: list[Path]) -> None:
    for path in made:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
