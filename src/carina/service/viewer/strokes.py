"""What the page Correct asks for and is told: strokes, decisions, the mask as it is now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from carina.corrections.decisions import LONGEST_REJECTION
from carina.corrections.finish import Finished
from carina.corrections.painting import LONGEST_NAME, Change, OpenStrokes, Painting
from carina.corrections.standing import Decision
from carina.service.viewer.stamps import painted_stamp

_Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
_Count = Annotated[int, Meta(ge=0, le=2**40)]


class StrokeAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stroke: of ``brush`` and ``eraser`` the voxels as runs, of ``fill`` and ``grow`` the voxel and the plane.

    ``is_own`` says that ``undo`` and ``redo`` mean a stroke of this reader.
    """

    revision: _Count
    id: _Name
    reader: _Name
    tool: Literal["brush", "eraser", "fill", "grow", "undo", "redo"]
    is_own: bool = False
    runs: list[_Count] = []
    at: tuple[_Count, _Count, _Count] | None = None
    plane: str = "axial"
    tolerance_hu: Annotated[float, Meta(ge=0, le=4000)] = 100.0
    reach_mm: Annotated[float, Meta(ge=0, le=500)] = 30.0


class DecisionAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mask is accepted, rejected (for a ``reason``), or finished as corrected, as it was at ``revision``."""

    revision: _Count
    reader: _Name
    decision: Decision
    reason: Annotated[str, Meta(max_length=LONGEST_REJECTION)] = ""


class SendAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The object of a finished correction is to be sent out; ``reader`` is whose page asks, where people log in."""

    number: Annotated[int, Meta(ge=1, le=2**31)]
    reader: Annotated[str, Meta(max_length=LONGEST_NAME)] = ""


class StrokeStored(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a stroke, and the mask as it is now; ``is_unfinished`` where it is not the one that was finished.

    ``undoes`` and ``redoes`` are whose stroke Undo takes back and Redo brings back, ``undoable`` and ``redoable`` all
    who have such a stroke; ``open`` is by whom the mask differs from the one that was finished, ``painters`` are all
    whose strokes are in it. ``at`` is when the last stroke came, by the clock of this machine. ``stamp`` is another one
    once anybody painted or finished.
    """

    revision: int
    change: Change
    voxels: int
    can_undo: bool
    can_redo: bool
    undoes: str
    redoes: str
    undoable: tuple[str, ...]
    redoable: tuple[str, ...]
    open: list[OpenStrokes]
    painters: tuple[str, ...]
    is_unfinished: bool
    at: datetime | None
    stamp: str


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a deed, in a sentence."""

    said: str


def stroke_stored(painting: Painting, change: Change, done: Sequence[Finished], *, is_unfinished: bool) -> StrokeStored:
    """What is told of a mask after a change; ``done`` are its finished corrections."""
    return StrokeStored(
        revision=painting.revision,
        change=change,
        voxels=painting.voxels,
        can_undo=painting.can_undo,
        can_redo=painting.can_redo,
        undoes=painting.undoes,
        redoes=painting.redoes,
        undoable=painting.undoable,
        redoable=painting.redoable,
        open=painting.open_strokes(done[-1].revision if done else 0),
        painters=painting.painters(painting.revision),
        is_unfinished=is_unfinished,
        at=painting.last.at.astimezone() if painting.last else None,
        stamp=painted_stamp(painting.bytes_read, done),
    )
