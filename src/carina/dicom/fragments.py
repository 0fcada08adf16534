"""Where the frames of encapsulated pixel data lie in a file (PS3.5 A.4), found without reading them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

ITEM = (0xFFFE, 0xE000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
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
            ValueError: the fragments can't be dealt out: there are fewer than frames, or more and no offset table.
        """
        if count == 1:
            return [self.fragments]
        if len(self.fragments) == count:
            return [(fragment,) for fragment in self.fragments]
        if len(self.frame_offsets) != count:
            raise ValueError(f"{len(self.fragments)} fragments for {count} frames and no offset table")
        ends = [*self.frame_offsets[1:], self.fragments[-1].offset + 1]
        return [
            tuple(f for f in self.fragments if start <= f.offset - 8 < end)
            for start, end in zip(self.frame_offsets, ends, strict=True)
        ]


def find_fragments(stream: BinaryIO, start: int, file_bytes: int) -> Encapsulated:
    """Walk the items of encapsulated pixel data whose value begins at ``start`` of a file."""
    table = _item(stream, start)
    if table is None:
        return Encapsulated(fragments=(), frame_offsets=(), is_complete=False)
    first = table.offset + table.size
    entries = stream.read(table.size // 4 * 4)
    offsets = struct.unpack(f"<{len(entries) // 4}I", entries)
    fragments: list[Piece] = []
    at = first
    while (piece := _item(stream, at)) is not None:
        fragments.append(piece)
        at = piece.offset + piece.size
    is_complete = bool(fragments) and at <= file_bytes
    return Encapsulated(
        fragments=tuple(fragments), frame_offsets=tuple(first + o for o in offsets), is_complete=is_complete
    )


def read_frame(stream: BinaryIO, pieces: Sequence[Piece]) -> bytes:
    """The bytes of one frame, its fragments joined."""
    parts = []
    for piece in pieces:
        stream.seek(piece.offset)
        parts.append(stream.read(piece.size))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _item(stream: BinaryIO, at: int) -> Piece | None:
    """The value of the item whose tag is at ``at``; None where another tag, or nothing, is."""
    stream.seek(at)
    head = stream.read(8)
    if len(head) < 8:
        return None
    group, element, size = struct.unpack("<HHI", head)
    return Piece(offset=at + 8, size=size) if (group, element) == ITEM else None
