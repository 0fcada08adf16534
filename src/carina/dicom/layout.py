"""How one frame's stored values lie in its bytes (PS3.3 C.7.6.3.1), as its header says and as far as that can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from carina.dicom.part10 import OpenFile
from carina.dicom.values import named, number_of, shown

BITS_ALLOCATED = (8, 16, 32)

LAYOUT_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)


MOST_PIXELS = 1 << 26
"""Of one slice (8192 x 8192): more are those of no CT, and are asked of memory by no header."""


class ImpossibleLayout(ValueError):
    """What a header says of its pixels can't be; the message is a clause that names the tag."""

    def __init__(self, words: str, code: str = "series.layout") -> None:
        super().__init__(words)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """How one frame's stored values lie in its bytes.

    ``padding`` is a range of values; it is one of the stored bits' values, or of whole words where those can't hold it
    (``padding_is_words``).
    """

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    padding: tuple[int, int] | None
    padding_is_words: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned type of one stored word, native byte order."""
        return np.dtype(f"u{self.bits_allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame when it is not compressed."""
        return self.rows * self.columns * self.bits_allocated // 8


def whole(opened: OpenFile, keyword: str, absent: int) -> int:
    """An attribute that is a whole number of 0 or more; ``absent`` where there is none.

    Raises:
        ImpossibleLayout: there is something else; the message names the tag and what is there.
    """
    raw = opened.raw(keyword)
    if raw is None or raw.is_empty:
        return absent
    value = number_of(raw)
    if value is None or value < 0 or value != int(value):
        raise _impossible(opened, keyword, "a whole number")
    return int(value)


def layout_of(opened: OpenFile) -> FrameLayout:
    """The layout of a file's frames.

    Raises:
        ImpossibleLayout: the header says none that can be, or one that no CT has; the message names the tag.
    """
    rows, columns = _matrix(opened)
    allocated = whole(opened, "BitsAllocated", 16)
    if allocated not in BITS_ALLOCATED:
        raise _impossible(opened, "BitsAllocated", "16 (8 and 32 are read too)")
    stored = whole(opened, "BitsStored", allocated)
    high_bit = whole(opened, "HighBit", stored - 1)
    sign = whole(opened, "PixelRepresentation", 0)
    for keyword, is_right, expected in (
        ("SamplesPerPixel", whole(opened, "SamplesPerPixel", 1) == 1, "1"),
        ("BitsStored", 1 <= stored <= allocated, f"1 to {allocated}"),
        ("HighBit", high_bit < allocated, f"{stored - 1}"),
        ("PixelRepresentation", sign in (0, 1), "0 or 1"),
    ):
        if not is_right:
            raise _impossible(opened, keyword, expected)
    padding = _padding(opened, allocated, is_signed=sign == 1)
    return FrameLayout(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        is_signed=sign == 1,
        padding=padding,
        padding_is_words=padding is not None and not _fits(padding, stored, is_signed=sign == 1),
    )


def _matrix(opened: OpenFile) -> tuple[int, int]:
    rows, columns = whole(opened, "Rows", 0), whole(opened, "Columns", 0)
    if not rows or not columns:
        raise _impossible(opened, "Columns" if rows else "Rows", "a number above 0")
    if rows * columns > MOST_PIXELS:
        words = f"it has {rows} x {columns} pixels (Rows x Columns), at most {MOST_PIXELS} can be read"
        raise ImpossibleLayout(words, "series.memory")
    return rows, columns


def _padding(opened: OpenFile, bits: int, *, is_signed: bool) -> tuple[int, int] | None:
    """The range of padding values (PS3.3 C.7.5.1.1.2); a signed value may be written as if it were unsigned."""
    value = opened.number("PixelPaddingValue")
    if value is None:
        return None
    limit = opened.number("PixelPaddingRangeLimit")
    ends = [_with_sign(int(end), bits, is_signed=is_signed) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _with_sign(value: int, bits: int, *, is_signed: bool) -> int:
    if is_signed:
        return value - (1 << bits) if value >= 1 << (bits - 1) else value
    return value + (1 << bits) if value < 0 else value


def _fits(padding: tuple[int, int], bits_stored: int, *, is_signed: bool) -> bool:
    """Whether the stored bits can hold a padding value; if not it fills the word, as some scanners write it."""
    lowest = -(1 << (bits_stored - 1)) if is_signed else 0
    return lowest <= padding[0] and padding[1] < lowest + (1 << bits_stored)


def _impossible(opened: OpenFile, keyword: str, expected: str) -> ImpossibleLayout:
    return ImpossibleLayout(f"{named(keyword)} is {shown(opened.raw(keyword))}, expected {expected}")
