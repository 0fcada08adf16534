"""Retention: what is old, or over its room, is removed, the oldest first, and never what anything still waits for."""

from __future__ import annotations

import heapq
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Engine, exists, func, select

from carina.config import Destination, RetentionSettings
from carina.database import INSTANCE, JOB, REMOVAL, OwnFolder, database_now, read_only
from carina.errors import LastingTrouble
from carina.jobs.queue import JobState
from carina.keeping.lock import files_held
from carina.keeping.readers_work import ReadersWork
from carina.keeping.removable import Bounds, KeptKind, Removable, removable
from carina.keeping.removal import Open, begin_removal, finish_removal, open_removals
from carina.receive.named import note_patients
from carina.sections import RUNS

LEAST_AGE = timedelta(hours=1)
"""What was of use more lately than this stays, whatever the settings say: somebody may just be looking at it."""

REMOVED_AT_ONCE = 100
"""Arrivals and runs that are removed in one round, so that a full disk is emptied in steps."""

_LOG = logging.getLogger(__name__)


def free_bytes(folder: Path) -> int:
    """Room on a folder's disk."""
    return shutil.disk_usage(folder).free


def bounds_at(now: datetime, settings: RetentionSettings, days: float = 0.0) -> Bounds:
    """What is old at a moment, after so many days, and what counts as given up then."""
    given_up = settings.abandoned_days
    return Bounds(
        before=now - max(timedelta(days=days), LEAST_AGE),
        abandoned=now - timedelta(days=given_up) if given_up else None,
    )


class Retention:
    """Removes what a node's settings let go; ``folder`` is the node's.

    ``destinations`` are those of the node: a correction counts as delivered where each that takes its kind has it.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        settings: RetentionSettings,
        *,
        destinations: Mapping[str, Destination] = MappingProxyType({}),
        clock: Callable[[], datetime] | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self.engine, self.folder, self.settings = engine, folder, settings
        self._own = OwnFolder(folder, engine)
        self._readers = ReadersWork(folder=folder, destinations=destinations)
        self._clock, self._free = clock, free
        self._sizes: dict[int, tuple[int, int]] = {}
        self._trouble = LastingTrouble()

    def round(self) -> int:
        """Finish what a crash left half removed, then remove what is due; gives how many folders went.

        While the node is being saved, none go.

        Raises:
            FolderAway: the node's folder is not there, or not any more: neither files nor rows go.
        """
        self._own.check()
        with files_held(self.folder, wait=False) as is_held:
            return self._remove_due() if is_held else 0

    def _remove_due(self) -> int:
        for opened in open_removals(self.engine):
            self._finish(opened)
        now = self._now()
        return self._by_age(now) + self._by_use(now) + self._by_room(now)

    def _now(self) -> datetime:
        if self._clock:
            return self._clock()
        with read_only(self.engine) as connection:
            return database_now(connection)

    def _bounds(self, now: datetime, days: float = 0.0) -> Bounds:
        return bounds_at(now, self.settings, days)

    def _candidates(self, kind: KeptKind, bounds: Bounds) -> list[Removable]:
        with read_only(self.engine) as connection:
            found = removable(connection, kind, bounds, self._readers.holds, at_most=REMOVED_AT_ONCE)
        if kind is KeptKind.INCOMING:
            return list(found)
        return [replace(one, bytes=self._size_of_run(one.id, one.attempt)) for one in found]

    def _by_age(self, now: datetime) -> int:
        removed = 0
        for kind, days in (
            (KeptKind.INCOMING, self.settings.incoming_days),
            (KeptKind.RUN, self.settings.runs_days),
        ):
            bounds = self._bounds(now, days)
            found = self._candidates(kind, bounds) if days else []
            removed += sum(self._remove(one, bounds, f"older than {days:g} days") for one in found)
        return removed

    def _by_use(self, now: datetime) -> int:
        removed, bounds = 0, self._bounds(now)
        for kind, limit_gb in ((KeptKind.INCOMING, self.settings.incoming_gb), (KeptKind.RUN, self.settings.runs_gb)):
            over = self._used(kind) - limit_gb * 1e9 if limit_gb else 0.0
            for one in self._candidates(kind, bounds) if over > 0 else []:
                if over > 0 and self._remove(one, bounds, f"over {limit_gb:g} GB"):
                    removed, over = removed + 1, over - one.bytes
        return removed

    def _by_room(self, now: datetime) -> int:
        removed, bounds, least = 0, self._bounds(now), self.settings.free_gb * 1e9
        if self._free(self.folder) >= least:
            return 0
        oldest = heapq.merge(*(self._candidates(kind, bounds) for kind in KeptKind), key=lambda one: one.since)
        for one in oldest:
            if self._free(self.folder) >= least:
                break
            removed += self._remove(one, bounds, f"less than {self.settings.free_gb:g} GB was free")
        return removed

    def _remove(self, one: Removable, bounds: Bounds, why: str) -> bool:
        """Whether it was removed; one whose files resist is said, tried again in each round, and holds up no other."""
        if one.kind is KeptKind.INCOMING:
            note_patients(self._own, one.id)
        with self._own.begin() as connection:
            opened = begin_removal(connection, one, bounds, why, self._readers)
        if opened is None:
            return False
        _LOG.info("removed", extra={"removed": f"{one.kind} {one.id}", "why": opened.why})
        self._finish(opened)
        return True

    def _finish(self, opened: Open) -> None:
        try:
            finish_removal(self._own, opened)
        except OSError as error:
            words = "%s %d is to be removed and its files resist (%s): give the node's user the right to."
            if self._trouble.is_news(f"{opened.kind} {opened.subject_id}: {error.strerror}"):
                _LOG.error(words, opened.kind, opened.subject_id, error.strerror)

    def _used(self, kind: KeptKind) -> int:
        """Bytes of a kind; runs that have stopped are measured once after each attempt."""
        gone = exists().where(REMOVAL.c.kind == KeptKind.RUN, REMOVAL.c.subject_id == JOB.c.id)
        with read_only(self.engine) as connection:
            if kind is KeptKind.INCOMING:
                return int(connection.execute(select(func.sum(INSTANCE.c.bytes))).scalar() or 0)
            stopped = select(JOB.c.id, JOB.c.attempt).where(JOB.c.state == JobState.STOPPED, ~gone)
            return sum(self._size_of_run(row.id, row.attempt) for row in connection.execute(stopped).all())

    def _size_of_run(self, job_id: int, attempt: int) -> int:
        measured, size = self._sizes.get(job_id, (-1, 0))
        if measured != attempt:
            size = sum(_sizes(self.folder / RUNS / str(job_id)))
            self._sizes[job_id] = attempt, size
        return size


def _sizes(folder: Path) -> Iterator[int]:
    for file in folder.rglob("*"):
        try:
            yield file.lstat().st_size
        except FileNotFoundError:  # it went meanwhile
            continue
