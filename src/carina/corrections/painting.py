"""One mask while a reader corrects it: its voxels as they are now, and the strokes that led there."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    the voxels that changed to ``value``. Of ``undo`` and ``redo`` ``stroke`` is which one is meant, counted from 1, or
    0: the last. ``id`` is the browser's name for what it asked, so that asking again after a lost answer does nothing
    twice. ``tool`` and ``reader`` (who did this, not whose stroke it was) are told, ``at`` is UTC.
    """

    kind: StrokeKind
    at: datetime
    id: str = ""
    reader: str = ""
    tool: str = ""
    value: int = 1
    runs: list[int] = []
    stroke: int = 0
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


class OpenStrokes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one painter: how many strokes were painted since a mask was finished, and how many in it were taken back."""

    painter: str
    painted: int
    taken_back: int


@dataclass(kw_only=True, eq=False)
class _Stroke:
    """What somebody painted; it is theirs whoever undoes it or brings it back. ``turns`` are the revisions of that."""

    painter: str
    change: Change
    turns: list[int] = field(default_factory=list)

    def is_in(self, revision: int) -> bool:
        """Whether the mask of a revision has it."""
        return bool(self.change.runs) and sum(turn <= revision for turn in self.turns) % 2 == 1


def _seen(strokes: Sequence[_Stroke]) -> list[_Stroke]:
    """Those that changed something. The others keep their places, which later records count by, and that is all."""
    return [one for one in strokes if one.change.runs]


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
        self._strokes: list[_Stroke] = []
        self._done: list[_Stroke] = []
        self._undone: list[_Stroke] = []
        self._ids: dict[str, tuple[int, Change]] = {}
        self._lock = threading.RLock()
        self.catch_up()

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke to undo."""
        return bool(_seen(self._done))

    @property
    def can_redo(self) -> bool:
        """Whether a stroke was undone last."""
        return bool(_seen(self._undone))

    @property
    def bytes_read(self) -> int:
        """How much of the strokes' file this mask has."""
        return self._journal.end

    @property
    def undoes(self) -> str:
        """Whose stroke an undo takes back."""
        return next((one.painter for one in reversed(_seen(self._done))), "")

    @property
    def redoes(self) -> str:
        """Whose stroke a redo brings back."""
        return next((one.painter for one in reversed(_seen(self._undone))), "")

    @property
    def undoable(self) -> tuple[str, ...]:
        """Who has strokes that can be taken back."""
        return tuple(dict.fromkeys(one.painter for one in _seen(self._done)))

    @property
    def redoable(self) -> tuple[str, ...]:
        """Who has strokes that can be brought back."""
        return tuple(dict.fromkeys(one.painter for one in _seen(self._undone)))

    def painters(self, revision: int) -> tuple[str, ...]:
        """Whose strokes the mask of a revision has, who painted first before the others."""
        with self._lock:
            return tuple(dict.fromkeys(one.painter for one in self._strokes if one.is_in(revision)))

    def open_strokes(self, finished: int) -> list[OpenStrokes]:
        """By whom the mask differs from that of a revision that was finished (0: the network's)."""
        with self._lock:
            changed = [one for one in self._strokes if one.is_in(self.revision) != one.is_in(finished)]
            painted = Counter(one.painter for one in changed if not one.is_in(finished))
            back = Counter(one.painter for one in changed if one.is_in(finished))
        names = dict.fromkeys(one.painter for one in changed)
        return [OpenStrokes(painter=name, painted=painted[name], taken_back=back[name]) for name in names]

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

        Where none changes there is no stroke: nothing is stored, and there is nothing to undo.

        Raises:
            Overtaken: ``revision`` is not that of the mask.
            BadConfig: ``corrections.runs``, or the folder can't be written.
        """
        places = places_of(runs, self.marks.size)
        with self._lock, self._journal.held():
            if (known := self._met(author, revision)) is not None:
                return known
            changed = runs_of(places[self.marks[places] != value])
            if not changed:
                return Change(value=value, runs=[])
            record = self._record(StrokeKind.PAINT, author, tool=tool, value=value, runs=changed)
            return self._store(record)

    def undo(self, author: Author, revision: int, *, is_own: bool = False) -> Change:
        """Take the last stroke back, or the last of the author's own; gives what changed.

        A stroke that others lie over is taken from below them: what they changed stays as they left it.

        Raises:
            Overtaken: ``revision`` is not that of the mask.
            BadConfig: ``corrections.no-stroke``, there is none; or the folder can't be written.
        """
        return self._turn(StrokeKind.UNDO, author, revision, is_own=is_own)

    def redo(self, author: Author, revision: int, *, is_own: bool = False) -> Change:
        """Bring back what was undone last, or last of the author's own; gives what changed. Raises as ``undo``."""
        return self._turn(StrokeKind.REDO, author, revision, is_own=is_own)

    def _turn(self, kind: StrokeKind, author: Author, revision: int, *, is_own: bool) -> Change:
        with self._lock, self._journal.held():
            if (known := self._met(author, revision)) is not None:
                return known
            found = self._done if kind is StrokeKind.UNDO else self._undone
            turned = [one for one in _seen(found) if not is_own or one.painter == author.reader][-1:]
            if not turned:
                whose = " of yours" if is_own else ""
                raise BadConfig("corrections.no-stroke", f"there is no stroke{whose} to {kind}.")
            number = 0 if turned[0] is found[-1] else self._strokes.index(turned[0]) + 1
            return self._store(msgspec.structs.replace(self._record(kind, author), stroke=number))

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
            raise self.overtaken("Nothing was stored: look at it as it is now, then paint.")
        return None

    def overtaken(self, what_next: str) -> Overtaken:
        """The error of who asks for something and looks at an older mask."""
        by = f" by {self.last.reader}" if self.last and self.last.reader else ""
        said = f"the mask was changed elsewhere{by} since it was read here. {what_next}"
        return Overtaken("corrections.overtaken", said)

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
        stroke, change = self._change(record)
        places = places_of(change.runs, self.marks.size)
        self.voxels += len(places) if change.value else -len(places)
        self.marks[places] = change.value
        self.revision += 1
        stroke.turns.append(self.revision)
        self.last = record if stroke.change.runs else self.last
        if record.id:
            self._ids[record.id] = (self.revision, change)
        return change

    def _change(self, record: StrokeRecord) -> tuple[_Stroke, Change]:
        """The stroke that a record is about, and what changes by it."""
        match record.kind:
            case StrokeKind.UNDO:
                stroke = self._moved(record, self._done, self._undone)
            case StrokeKind.REDO:
                stroke = self._moved(record, self._undone, self._done)
            case _:
                stroke = _Stroke(painter=record.reader, change=Change(value=record.value, runs=record.runs))
                self._strokes.append(stroke)
                self._done.append(stroke)
                self._undone.clear()
                return stroke, stroke.change
        return stroke, self._turning(stroke)

    def _moved(self, record: StrokeRecord, taken: list[_Stroke], put: list[_Stroke]) -> _Stroke:
        """The stroke that a record turns, from the one list at the end of the other."""
        stroke = self._strokes[record.stroke - 1] if record.stroke else taken[-1]
        taken.remove(stroke)
        put.append(stroke)
        return stroke

    def _turning(self, stroke: _Stroke) -> Change:
        """What changes when a stroke goes out of the mask or comes into it: they lie over each other in their order."""
        value = 1 - stroke.change.value if stroke.is_in(self.revision) else stroke.change.value
        places = places_of(stroke.change.runs, self.marks.size)
        if not places.size:
            return Change(value=value, runs=[])
        first, end = int(places[0]), int(places[-1]) + 1
        shown = (self.base.labels.reshape(-1)[first:end] > 0).astype(np.uint8)
        for one in self._strokes:
            if one.is_in(self.revision) != (one is stroke):
                own = places_of(one.change.runs, self.marks.size)
                shown[own[(own >= first) & (own < end)] - first] = one.change.value
        return Change(value=value, runs=runs_of(places[shown[places - first] != self.marks[places]]))
