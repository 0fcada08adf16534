"""Fetches by hand whose process was killed: each is written down before it begins, and the node resumes it.

``FOLDER/*.json`` has the series of one command in its first line, and then a line for each that has ended and for each
try of the node's. Who fetches holds its lock, which the system lets go of when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from carina.errors import FULL, BadConfig, CarinaError, DeliveryFailed, told
from carina.pipeline.json_text import read_json
from carina.receive.durability import flush_folder
from carina.receive.fetch import FoundSeries
from carina.receive.moves import FETCHING
from carina.receive.pull import peer_called, pull
from carina.receive.store import InstanceStore

TRY = "try"
RESUMED_AT_MOST = 4
FETCH_PAUSE_S = 60.0
"""After a try that failed; twice as long after each next one."""

_LOG = logging.getLogger(__name__)


class FetchWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A series that was asked for by hand: of which peer, and as which source it counts."""

    peer: str
    source: str
    study_uid: str
    series_uid: str
    instances: int | None
    is_moved: bool

    @property
    def command(self) -> str:
        """What asks for it again."""
        how = " --move" if self.is_moved else ""
        where = f"{self.peer} --study {self.study_uid} --series {self.series_uid}"
        return f"carina fetch {where} --source {self.source}{how}"


@contextmanager
def written_down(folder: Path, wishes: Sequence[FetchWish]) -> Iterator[Callable[[str], None]]:
    """While series are fetched into a node's folder; gives what is told which of them has ended.

    Nothing is left of it however the block ends, since whoever called is told then; unless the process is killed.

    Raises:
        OSError: the folder can't be written.
    """
    place = folder / FETCHING
    place.mkdir(mode=0o700, exist_ok=True)
    file = place / f"{os.getpid()}-{time.time_ns()}.json"
    new = file.with_suffix(".new")
    with new.open("xb", buffering=0) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            handle.write(msgspec.json.encode(wishes) + b"\n")
            os.fsync(handle)
            new.rename(file)
            flush_folder(place)
            yield lambda series_uid: _add(handle.fileno(), series_uid)
        finally:
            new.unlink(missing_ok=True)
            file.unlink(missing_ok=True)


def _add(handle: int, line: str) -> None:
    os.lseek(handle, 0, os.SEEK_END)
    os.write(handle, f"{line}\n".encode())


class FetchResumer:
    """Fetches what was asked for by hand and whose process was killed."""

    def __init__(self, store: InstanceStore, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.store, self._clock_s = store, clock_s
        self._not_before: dict[str, float] = {}
        self._told: set[str] = set()

    def round(self) -> int:
        """Take up every fetch that nobody is at and that is due; gives how many."""
        taken = 0
        for file in sorted((self.store.folder / FETCHING).glob("*.json")):
            if self._clock_s() < self._not_before.get(file.name, 0.0):
                continue
            try:
                with _taken(file) as handle:
                    if handle is not None:
                        taken += 1
                        self._resume(file, handle)
            except OSError as error:
                if error.errno in FULL:  # no fault of the record's: the node tells it
                    raise
                self._tell_once(file, error)
        return taken

    def _tell_once(self, file: Path, error: OSError) -> None:
        """Somebody else's record, as of a fetch by root, holds up neither the node nor the others."""
        if file.name not in self._told:
            self._told.add(file.name)
            why = told(error).message
            _LOG.warning("%s: no record of a fetch that the node may use (%s): give it to the node's user.", file, why)

    def _resume(self, file: Path, handle: int) -> None:
        first, *lines = file.read_text(errors="replace").splitlines() or [""]
        try:
            wishes = read_json(first, list[FetchWish])
        except ValueError:
            _LOG.warning("%s: a fetch that was broken off can't be read: ask for it again.", file)
            file.unlink()
            return
        tries = lines.count(TRY)
        left = [wish for wish in wishes if wish.series_uid not in lines]
        if tries >= RESUMED_AT_MOST:
            self._give_up(file, left, "it failed too often")
            return
        _add(handle, TRY)
        try:
            for wish in left:
                _LOG.info("a fetch was broken off and is resumed: %s", self._fetched(wish))
                _add(handle, wish.series_uid)
        except BadConfig as error:
            self._give_up(file, left, error.message)
        except (CarinaError, OSError) as error:
            self._not_before[file.name] = self._clock_s() + FETCH_PAUSE_S * 2**tries
            _LOG.warning("a fetch that was broken off is tried again later: %s", told(error).message)
        else:
            file.unlink()

    def _fetched(self, wish: FetchWish) -> str:
        """Fetch a series; a sentence on what came.

        Raises:
            BadConfig: the settings no longer have its peer or its source.
            DeliveryFailed: the peer fails, or not all came.
        """
        peer = peer_called(wish.peer, self.store.settings)
        if wish.source not in self.store.settings.sources:
            raise BadConfig("fetch.unknown-source", f"sources.{wish.source}: not in the settings any more.")
        series = FoundSeries(
            study_uid=wish.study_uid,
            series_uid=wish.series_uid,
            study_date="",
            description="",
            instances=wish.instances,
        )
        (pulled,) = pull(wish.peer, peer, [series], self.store, wish.source, is_moved=wish.is_moved)
        if not pulled.is_whole:
            raise DeliveryFailed("fetch.part", pulled.words)
        return pulled.words

    def _give_up(self, file: Path, left: Sequence[FetchWish], why: str) -> None:
        for wish in left:
            _LOG.warning("a fetch was broken off and is not resumed (%s): ask again: %s", why, wish.command)
        file.unlink()


@contextmanager
def _taken(file: Path) -> Iterator[int | None]:
    """A fetch's file that is ours while the block runs; None where whoever began it is still at it, or has ended."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.fstat(handle).st_nlink > 0
    except OSError:
        is_there = False
    try:
        yield handle if is_there else None
    finally:
        os.close(handle)
