"""Where the frames of encapsulated pixel data lie in a file (PS3.5 A.4), found without reading them."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO, NamedTuple

from carina.dicom.sources import Bytes

ITEM_TAG = (0xFFFE, 0xE000)

MOST_FRAGMENTS = 1 << 18
"""Fragments of one file; more are those of no CT."""


class DamagedFrame(ValueError):
    """A frame is not what its header says; a clause in words of ours, which quote no data."""


class Piece(NamedTuple):
    """Bytes of a file: where they begin and how many."""

    offset: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Encapsulated:
    """The fragments of a file in their order, and where frames begin by the Basic Offset Table (file offsets).

    ``is_complete`` is false where the file ends before the last fragment does.
    """

    fragments: tuple[Piece, ...]
    frame_offsets: tuple[int, ...]
    is_complete: bool

    def frames(self, count: int) -> list[tuple[Piece, ...]]:
        """The fragments of each of ``count`` frames.

        Raises:
            DamagedFrame: the fragments can't be dealt out: there are fewer than frames, or more and no offset table.
        """
        if count == 1:
            return [self.fragments]
        if len(self.fragments) == count:
            return [(fragment,) for fragment in self.fragments]
        if len(self.frame_offsets) != count:
            raise DamagedFrame(f"{len(self.fragments)} fragments for {count} frames and no offset table")
        return _dealt_out(self.fragments, self.frame_offsets)


def _dealt_out(fragments: tuple[Piece, ...], frame_offsets: Sequence[int]) -> list[tuple[Piece, ...]]:
    places = [fragment.offset - 8 for fragment in fragments]
    starts = [*(bisect_left(places, offset) for offset in frame_offsets), len(places)]
    if any(start >= end for start, end in pairwise(starts)):
        raise DamagedFrame(
            f"{len(fragments)} fragments for {len(frame_offsets)} frames and an offset table that is wrong"
        )
    return [fragments[start:end] for start, end in pairwise(starts)]


def find_fragments(source: Bytes, start: int, file_bytes: int) -> Encapsulated:
    """Walk the items of encapsulated pixel data whose value begins at ``start`` of a file.

    Raises:
        BadSeries: there are more than any CT has.
    """
    table = _item(source, start)
    if table is None:
        return Encapsulated(fragments=(), frame_offsets=(), is_complete=False)
    first = table.offset + table.size
    entries = source.read(table.offset, min(table.size // 4, MOST_FRAGMENTS) * 4)
    offsets = struct.unpack(f"<{len(entries) // 4}I", entries[: len(entries) // 4 * 4])
    fragments: list[Piece] = []
    at = first
    while at <= file_bytes and (piece := _item(source, at)) is not None:
        fragments.append(piece)
        at = piece.offset + piece.size
        if len(fragments) > MOST_FRAGMENTS:
            raise source.broken(f"its pixel data has more than {MOST_FRAGMENTS} fragments")
    return Encapsulated(
        fragments=tuple(fragments),
        frame_offsets=tuple(first + offset for offset in offsets),
        is_complete=bool(fragments) and at <= file_bytes,
    )


def read_frame(stream: BinaryIO, pieces: Sequence[Piece]) -> bytes:
    """The bytes of one frame, its fragments joined."""
    parts = []
    for piece in pieces:
        stream.seek(piece.offset)
        parts.append(stream.read(piece.size))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _item(source: Bytes, at: int) -> Piece | None:
    """The value of the item whose tag is at ``at``; None where another tag, or nothing, is."""
    head = source.read(at, 8)
    if len(head) < 8:
        return None
    group, element, size = struct.unpack("<HHI", head)
    return Piece(at + 8, size) if (group, element) == ITEM_TAG else None
