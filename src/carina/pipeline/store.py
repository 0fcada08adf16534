"""A run's outputs are stored in the background, each file appearing whole and in one step."""

from __future__ import annotations

import errno
import shutil
import threading
import weakref
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from carina.errors import BadConfig, unwritable
from carina.pipeline import ports
from carina.pipeline.digests import Digest, Digests
from carina.pipeline.folder import LOCK, WRITING
from carina.pipeline.operator import Port
from carina.pipeline.places import below, make_below
from carina.pipeline.trees import remove_tree
from carina.pipeline.values import Files

NEARLY_FULL_BYTES = 2**26
"""With less room than this, a file that could not be written met a full disk."""


class Stored(NamedTuple):
    """A value's files, the one to open first, each with its digest."""

    files: tuple[Path, ...]
    digests: tuple[Digest, ...] = ()


class Store:
    """Stores values in a run's folder, one after the other, in a thread of its own.

    One thread, in order: a value that refers to an earlier one (a scene to its volume) finds that one's files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._is_held = folder, (folder / LOCK).exists()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="carina-store")
        self._known: weakref.WeakKeyDictionary[object, Future[Stored]] = weakref.WeakKeyDictionary()
        self._owners: dict[Path, str] = {}
        self._lock = threading.Lock()
        self.digests = Digests()

    def check_place(self) -> None:
        """See that the run's folder is still the one that this process holds, by its lock.

        An operator that makes its folders itself may have made it anew, where a disk was taken away meanwhile.

        Raises:
            OSError: it is not.
        """
        if self._is_held and not (self.folder / LOCK).exists():
            raise FileNotFoundError(errno.ENOENT, "it was removed, or its disk was", str(self.folder))

    def put(self, port: Port, value: object, place: str, owner: str) -> Future[Stored]:
        """Store a port's value under the folder ``place``; the future gives its files and their digests."""
        future = self._thread.submit(self._write, port, value, place, owner)
        self._remember(value, future)
        return future

    def found(self, value: object, files: Iterable[Path]) -> None:
        """Remember the files that a value was just loaded from."""
        future: Future[Stored] = Future()
        future.set_result(Stored(tuple(files)))
        self._remember(value, future)

    def claim(self, files: Iterable[Path], owner: str) -> None:
        """Note the files of an earlier start, so that no other operator's output replaces them."""
        self._owners.update(dict.fromkeys(files, owner))

    def files(self, value: object) -> tuple[Path, ...]:
        """The files of a stored value, waiting for them; nothing for a value that isn't stored."""
        future = self._future(value)
        return future.result().files if future else ()

    def _written(self, value: object) -> tuple[Path, ...]:
        """The files of a value that is already stored; asked in the storing thread, which can't wait for itself."""
        future = self._future(value)
        return future.result().files if future and future.done() and not future.exception() else ()

    def _future(self, value: object) -> Future[Stored] | None:
        try:
            with self._lock:
                return self._known.get(value)
        except TypeError:
            return None

    def close(self) -> None:
        """Wait for what is being written, and remove what is half-written."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        remove_tree(self.folder / WRITING)

    def _remember(self, value: object, future: Future[Stored]) -> None:
        try:
            with self._lock:
                self._known[value] = future
        except TypeError:
            return  # a plain number or text: nothing refers to its files

    def _write(self, port: Port, value: object, place: str, owner: str) -> Stored:
        temporary = below(self.folder / WRITING, f"{owner}/{place}")
        remove_tree(temporary)
        try:
            self.check_place()
            make_below(self.folder, temporary)
            kind = Files if isinstance(value, Files) else port.type  # of what ran outside of this process
            written = ports.save_value(kind, value, temporary, self._written)
            relative = [path.relative_to(temporary) for path in written]
            digests = tuple(self.digests.of(path) for path in written)
            home = self._home(place, owner, relative)
            self._publish(temporary, home, relative)
            return Stored(tuple(home / path for path in relative), digests)
        except OSError as error:
            raise unwritable(error, self.folder) from error
        except BadConfig as error:  # a library's writer can't tell a full disk from a folder that is read-only
            if shutil.disk_usage(self.folder).free < NEARLY_FULL_BYTES:
                raise unwritable(OSError(errno.ENOSPC, ""), self.folder) from error
            raise
        finally:
            remove_tree(temporary)

    def _home(self, place: str, owner: str, relative: list[Path]) -> Path:
        """The folder ``place``, or one of the operator's own below it where another operator's file is in the way."""
        home = self.folder if Path(place) == Path() else below(self.folder, place)
        temporary = self.folder / WRITING / owner / place
        foreign = (path for path in relative if self._owners.get(home / path, owner) != owner)
        taken = any(not _is_same(temporary / path, home / path) for path in foreign)
        home = home / owner if taken else home
        for folder in {path.parent for path in relative} - {Path()}:  # it may be there, as a link that leads out
            below(home, folder.as_posix())
        self._owners.update(dict.fromkeys((home / path for path in relative), owner))
        return home

    def _publish(self, temporary: Path, home: Path, relative: list[Path]) -> None:
        for path in reversed(relative):  # the file to open appears last
            make_below(self.folder, (home / path).parent)
            (temporary / path).replace(home / path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both names are links to one file, as those of a volume that two scenes share."""
    return other.exists() and one.samefile(other)
