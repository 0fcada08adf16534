"""A watched folder: files that have been left alone for a while are taken in like any other instance, and stay.

What was taken is remembered in the database by a digest of its name, its size and its time of change, so that nothing
is taken twice, whatever is restarted or removed; names of files may hold a patient's, and are neither kept nor logged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from threading import Event
from typing import NamedTuple

from sqlalchemy import delete, insert, select

from carina.config import FolderSource
from carina.database import FOLDER_AWAY, WATCHED, Outages, database_now, read_only
from carina.errors import BadConfig
from carina.receive.files import arriving_file, check_file_size, check_written, read_says, spooled
from carina.receive.instance import TAKEN_LATER, NotAccepted
from carina.receive.refused import RefusalLog
from carina.receive.store import InstanceStore, SentBy

MOST_WAITING = 100_000
"""Files that are watched at once for being left alone; more wait until these are taken."""

DEEPEST_FOLDER = 64
LOOKED_UP_AT_ONCE = 500
FILE_READ_AT_ONCE = 1 << 20
LONGEST_BETWEEN_LOOKS_S = 10.0

MOST_PASSED_OVER = 1000
"""Files that are never taken, and are remembered as told."""

LATEST_S = 250_000_000_000
"""A time of change beyond it (in the year 9892) is shown as it: a file may have any, a date has four digits."""

_EVER = datetime.fromtimestamp(0, UTC)

_LOG = logging.getLogger(__name__)


class _Form(NamedTuple):
    """What changes when a file does."""

    size: int
    modified_ns: int
    inode: int


PassOver = Callable[[Path, _Form, str], None]


class FileFate(StrEnum):
    """What became of a file: as ``Accepted``, or refused."""

    NEW = "new"
    REPEATED = "repeated"
    APART = "apart"
    REFUSED = "refused"


class ChangedMeanwhileError(Exception):
    """A file that somebody writes to while it is read."""


@dataclass(frozen=True)
class _Waiting:
    """A file that may be taken later: since when it is seen as it is now, and since when it may have been there.

    ``there_from`` is by the database's clock; None of one that can't be read, which holds up no series.
    """

    form: _Form
    since_s: float
    there_from: datetime | None


class WatchedFolder:
    """A source's folder; ``look`` takes what is ready, ``watch`` looks until it is told to stop.

    The store is told since when files may be there that are not taken yet (``untaken``), so that a series of which some
    came after that waits for them, however long they take. What comes later holds it up no longer.
    """

    def __init__(
        self, name: str, source: FolderSource, store: InstanceStore, *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.folder, self._store, self._clock_s = name, Path(source.path), store, clock_s
        self.quiet_s = source.quiet_s
        self._waiting: dict[bytes, _Waiting] = {}
        self._looked_at = _EVER
        """When the last look began: a file that it did not see came later."""
        store.untaken[name] = _EVER
        self._trouble, self._outages = "", Outages(f"folder of {name}", source.path)
        self._away, self.outages = "", Outages(f"folder of {name}", source.path)
        """Of the whole folder, beside those of single files, which hold up no other."""
        self._passed_over: set[Path] = set()
        self._refusals = RefusalLog(_LOG, f"the folder of {name}")

    def watch(self, stop: Event) -> None:
        """Look again and again.

        Raises:
            FolderAway: the node's folder is not there, so that nothing can be taken.
        """
        while not stop.is_set():
            self._store.own.check()
            self.look(stop)
            stop.wait(min(self.quiet_s / 2, LONGEST_BETWEEN_LOOKS_S))

    def look(self, stop: Event | None = None) -> Counter[FileFate]:
        """Take in what has been left alone for ``quiet_s``; what became of it, by how many."""
        fates: Counter[FileFate] = Counter()
        seen: dict[bytes, _Waiting] = {}
        self._trouble = self._away = ""
        with read_only(self._store.engine) as connection:
            began = database_now(connection)
        self._hold(self._looked_at)
        try:
            for file, key, form in self._untaken():
                if (stop and stop.is_set()) or len(seen) >= MOST_WAITING:
                    break
                if not self._is_left_alone(key, form, seen):
                    continue
                if fate := self._take(file, key, form):
                    fates[fate] += 1
                    del seen[key]
                else:
                    seen[key] = replace(seen[key], there_from=None)
        except OSError as error:
            self._away = f"{self.folder} can't be read ({error.strerror or error}): let the node's user read it"
        except NotAccepted as error:
            self._trouble = _trouble_of(error)
            seen = self._waiting | seen  # with those that this look did not come to
        self._waiting, self._looked_at = seen, began
        self._hold()
        self._refusals.end()
        self._tell(fates)
        return fates

    def _tell(self, fates: Counter[FileFate]) -> None:
        """What was taken, and what keeps files from being taken: the latter once, though it is tried again."""
        if fates:
            _LOG.info("folder of %s: %s.", self.name, ", ".join(f"{count} {fate}" for fate, count in fates.items()))
        for outages, trouble in ((self.outages, self._away), (self._outages, self._trouble)):
            if trouble:
                outages.tell(BadConfig("receive.folder", f"{trouble}; what can't be taken waits."))
            else:
                outages.is_over()

    def _hold(self, *more: datetime) -> None:
        """Say since when files may be there that are not taken yet."""
        times = [*more, *(one.there_from for one in self._waiting.values() if one.there_from is not None)]
        if times:
            self._store.untaken[self.name] = min(times)
        else:
            self._store.untaken.pop(self.name, None)

    def _is_left_alone(self, key: bytes, form: _Form, seen: dict[bytes, _Waiting]) -> bool:
        now, before = self._clock_s(), self._waiting.pop(key, None)
        seen[key] = before if before and before.form == form else _Waiting(form, now, self._looked_at)
        return now - seen[key].since_s >= self.quiet_s

    def _untaken(self) -> Iterator[tuple[Path, bytes, _Form]]:
        """Files of the folder that were not taken as they are now."""
        files = _files(self.folder, self._pass_over)
        while batch := list(islice(files, LOOKED_UP_AT_ONCE)):
            keys = {_key(self.folder, file): (file, form) for file, form in batch}
            taken = self._taken(keys)
            for key, (file, form) in keys.items():
                if taken.get(key.hex()) != (form.size, form.modified_ns):
                    yield file, key, form

    def _pass_over(self, file: Path, form: _Form, why: str) -> None:
        """Say of a file that is never taken why, once while it is there."""
        if file in self._passed_over or len(self._passed_over) >= MOST_PASSED_OVER:
            return
        self._passed_over.add(file)
        _LOG.warning("folder of %s: %s is not taken: %s.", self.name, _shown(form), why)

    def _taken(self, keys: Iterable[bytes]) -> Mapping[str, tuple[int, int]]:
        columns = select(WATCHED.c.name_sha256, WATCHED.c.bytes, WATCHED.c.modified_ns)
        wanted = columns.where(WATCHED.c.source == self.name, WATCHED.c.name_sha256.in_([key.hex() for key in keys]))
        with read_only(self._store.engine) as connection:
            return {row.name_sha256: (row.bytes, row.modified_ns) for row in connection.execute(wanted)}

    def _take(self, file: Path, key: bytes, form: _Form) -> FileFate | None:
        """Bring a file to the store, and remember that it was; None where it can't be read now.

        Raises:
            NotAccepted: the disk is full, for every file.
        """
        try:
            fate = self._accept(file, form)
        except NotAccepted as error:
            if error.code in TAKEN_LATER:
                raise
            if self._refusals.has_room(error.code):
                _LOG.warning("folder of %s: %s: %s [%s]", self.name, _shown(form), error.message, error.code)
            fate = FileFate.REFUSED
        except ChangedMeanwhileError:
            return None
        except OSError as error:
            self._trouble = f"{_shown(form)}, can't be read ({error.strerror or error}); it is in {self.folder}"
            return None
        self._remember(key, form, fate)
        return fate

    def _accept(self, file: Path, form: _Form) -> FileFate:
        largest = self._store.settings.dicom.instance_mb * 1_000_000
        check_file_size(form.size, largest)
        with spooled(self._store.own, _content(file, form), largest) as spool:
            says = read_says(spool)
            check_written(spool)
            with arriving_file(spool, says) as arriving:
                return FileFate(self._store.accept(arriving, SentBy(self.name, "folder")))

    def _remember(self, key: bytes, form: _Form, fate: FileFate) -> None:
        same = (WATCHED.c.source == self.name) & (WATCHED.c.name_sha256 == key.hex())
        with self._store.engine.begin() as connection:
            row = {
                "source": self.name,
                "name_sha256": key.hex(),
                "bytes": form.size,
                "modified_ns": form.modified_ns,
                "became": fate,
                "taken_at": database_now(connection),
            }
            connection.execute(delete(WATCHED).where(same))
            connection.execute(insert(WATCHED), row)


def _trouble_of(error: NotAccepted) -> str:
    """Why nothing can be taken; that the node's folder is away is told once for all."""
    return "" if error.code == FOLDER_AWAY else error.message.rstrip(".")


def _shown(form: _Form) -> str:
    """A file as the log may show it, so that it can be found: its name may be a patient's."""
    changed = datetime.fromtimestamp(min(max(form.modified_ns // 10**9, 0), LATEST_S)).astimezone()
    return f"a file of {form.size} bytes, changed {changed:%Y-%m-%d %H:%M:%S}"


def _key(folder: Path, file: Path) -> bytes:
    return hashlib.sha256(os.fsencode(file.relative_to(folder))).digest()


def _files(folder: Path, pass_over: PassOver) -> Iterator[tuple[Path, _Form]]:
    """Regular files below a folder, in the order of their names; links are passed over, hidden ones left alone."""
    levels = [iter(_entries(folder))]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif not entry.is_dir(follow_symlinks=False):
            if (form := _form(entry, pass_over)) is not None:
                yield Path(entry.path), form
        elif len(levels) < DEEPEST_FOLDER:
            levels.append(iter(_below(Path(entry.path))))
        else:
            form = _form_of(entry.stat(follow_symlinks=False))
            pass_over(Path(entry.path), form, f"a folder lies deeper than {DEEPEST_FOLDER} others")


def _below(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder inside the watched one holds; one that can't be read holds up no other."""
    try:
        return _entries(folder)
    except OSError:
        return []


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)


def _form(entry: os.DirEntry[str], pass_over: PassOver) -> _Form | None:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return _form_of(found)
    is_link = stat.S_ISLNK(found.st_mode)
    why = "links are not followed, put the file itself there" if is_link else "it is a pipe, socket or device, no file"
    pass_over(Path(entry.path), _form_of(found), why)
    return None


def _form_of(found: os.stat_result) -> _Form:
    return _Form(found.st_size, found.st_mtime_ns, found.st_ino)


def _content(file: Path, form: _Form) -> Iterator[bytes]:
    """A file's bytes, if it stays as it was seen.

    Raises:
        ChangedMeanwhileError: it does not.
        OSError: it can't be read.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # what was a file may be a pipe by now
    with os.fdopen(handle, "rb") as stream:
        while _form_of(os.fstat(handle)) == form:
            chunk = stream.read(FILE_READ_AT_ONCE)
            if not chunk:
                return
            yield chunk
    raise ChangedMeanwhileError
