"""One mask while a reader corrects it: its voxels as they are now, and the strokes that led there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np

from carina.corrections.journal import Journal
from carina.corrections.voxel_runs import places_of, runs_of, runs_of_flags
from carina.errors import BadConfig
from carina.volume.arrays import Labels
from carina.volume.volume import Mask

LONGEST_NAME = 64


class StrokeKind(StrEnum):
    """What a record of the journal says."""

    BASE = "base"
    PAINT = "paint"
    UNDO = "undo"
    REDO = "redo"


class StrokeRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line of the strokes' journal.

    The first one (``base``) has the digest of the mask that was there before any stroke. Of ``paint`` the ``runs`` are
    the voxels that changed to ``value``. ``id`` is the browser's name for what it asked, so that asking again after a
    lost answer does nothing twice. ``tool`` and ``reader`` are told, ``at`` is UTC.
    """

    kind: StrokeKind
    at: datetime
    id: str = ""
    reader: str = ""
    tool: str = ""
    value: int = 1
    runs: list[int] = []
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Author:
    """Who paints when; ``id`` names what was asked."""

    reader: str
    at: datetime
    id: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Voxels that are now ``value``, as runs."""

    value: int
    runs: list[int]


class Overtaken(BadConfig):
    """Somebody else changed the mask since it was last looked at; nothing was stored."""


def labels_sha256(labels: Labels) -> str:
    """A digest of a mask's voxels and shape."""
    found = hashlib.sha256(repr(labels.shape).encode())
    found.update(np.ascontiguousarray(labels).data)
    return found.hexdigest()


class Painting:
    """A mask and its strokes. Several threads and several processes may change it, each told of the others' changes.

    ``marks`` is flat, uint8, 0 and 1; ``base_digest`` is that of the mask before any stroke; ``revision`` counts the
    records behind the first.

    Raises:
        BadConfig: ``corrections.damaged``; ``corrections.base``, the strokes are of another mask.
    """

    def __init__(self, base: Mask, path: Path) -> None:
        self.base = base
        self.marks: Labels = (base.labels.reshape(-1) > 0).astype(np.uint8)
        self.voxels = int(np.count_nonzero(self.marks))
        self.last: StrokeRecord | None = None
        self.revision = 0
        self.base_digest = labels_sha256(base.labels)
        self._journal = Journal(path, StrokeRecord)
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._ids: dict[str, tuple[int, Change]] = {}
        self._lock = threading.RLock()
        self.catch_up()

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether a stroke was undone last."""
        return bool(self._undone)

    @property
    def runs(self) -> list[int]:
        """The marked voxels."""
        return runs_of_flags(self.marks.view(np.bool_))

    @property
    def labels(self) -> Labels:
        """The mask as it is now: ``(z, y, x)``, what was marked keeps its label, what is new has the lowest."""
        lowest = min(self.base.names, default=1)
        before = self.base.labels.reshape(-1)
        now = np.where(self.marks > 0, np.where(before > 0, before, np.uint8(lowest)), np.uint8(0))
        return now.reshape(self.base.labels.shape)

    def now(self) -> tuple[Labels, int]:
        """The mask and its revision, of one moment."""
        with self._lock:
            return self.labels, self.revision

    def catch_up(self) -> int:
        """Take over what other processes stored; gives the revision."""
        with self._lock:
            for record in self._journal.unread():
                self._replay(record)
            return self.revision

    def paint(self, runs: Sequence[int], value: int, tool: str, author: Author, revision: int) -> Change:
        """Set voxels to 0 or 1; gives those that changed, which are on the disk when this returns.

        Raises:
            Overtaken: ``revision`` is not that of the mask.
            BadConfig: ``corrections.runs``, or the folder can't be written.
        """
        places = places_of(runs, self.marks.size)
        with self._lock, self._journal.held():
            if (known := self._met(author, revision)) is not None:
                return known
            changed = runs_of(places[self.marks[places] != value])
            record = self._record(StrokeKind.PAINT, author, tool=tool, value=value, runs=changed)
            return self._store(record)

    def undo(self, author: Author, revision: int) -> Change:
        """Take the last stroke back; gives what changed.

        Raises:
            Overtaken: ``revision`` is not that of the mask.
            BadConfig: ``corrections.no-stroke``, there is none; or the folder can't be written.
        """
        return self._turn(StrokeKind.UNDO, author, revision)

    def redo(self, author: Author, revision: int) -> Change:
        """Bring back the stroke that was undone last; gives what changed. Raises as ``undo``."""
        return self._turn(StrokeKind.REDO, author, revision)

    def _turn(self, kind: StrokeKind, author: Author, revision: int) -> Change:
        with self._lock, self._journal.held():
            if (known := self._met(author, revision)) is not None:
                return known
            if not (self._done if kind is StrokeKind.UNDO else self._undone):
                raise BadConfig("corrections.no-stroke", f"there is no stroke to {kind}.")
            return self._store(self._record(kind, author))

    def _met(self, author: Author, revision: int) -> Change | None:
        """What came of the same question before; the journal is held.

        Raises:
            Overtaken: the mask has another revision.
        """
        self.catch_up()
        known = self._ids.get(author.id)
        if known is not None:
            return known[1]
        if revision != self.revision:
            raise Overtaken(
                "corrections.overtaken",
                f"the mask was changed elsewhere: it is at revision {self.revision}, this page at {revision}. Nothing "
                "was stored: look at it as it is now, then paint.",
            )
        return None

    def _record(
        self, kind: StrokeKind, author: Author, *, tool: str = "", value: int = 1, runs: Sequence[int] = ()
    ) -> StrokeRecord:
        return StrokeRecord(
            kind=kind, at=author.at, id=author.id, reader=author.reader, tool=tool, value=value, runs=list(runs)
        )

    def _store(self, record: StrokeRecord) -> Change:
        if not self._journal.end:
            base = StrokeRecord(kind=StrokeKind.BASE, at=record.at, sha256=self.base_digest)
            self._journal.append(base)
            self._replay(base)
        self._journal.append(record)
        return self._replay(record)

    def _replay(self, record: StrokeRecord) -> Change:
        """Apply a stored record; gives what changed by it."""
        if record.kind is StrokeKind.BASE:
            if record.sha256 != self.base_digest:
                raise BadConfig(
                    "corrections.base",
                    f"{self._journal.path}: these strokes are of another mask, since the run was made again: move the "
                    "file away to begin anew.",
                )
            return Change(value=0, runs=[])
        change = self._change(record)
        places = places_of(change.runs, self.marks.size)
        self.voxels += len(places) if change.value else -len(places)
        self.marks[places] = change.value
        self.revision += 1
        self.last = record
        if record.id:
            self._ids[record.id] = (self.revision, change)
        return change

    def _change(self, record: StrokeRecord) -> Change:
        match record.kind:
            case StrokeKind.UNDO:
                change = self._done.pop()
                self._undone.append(change)
                return Change(value=1 - change.value, runs=change.runs)
            case StrokeKind.REDO:
                change = self._undone.pop()
                self._done.append(change)
                return change
            case _:
                change = Change(value=record.value, runs=record.runs)
                self._done.append(change)
                self._undone.clear()
                return change
