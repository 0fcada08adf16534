"""What the text headers of MetaImage and NRRD have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from carina.errors import BadSeries
from carina.volume.header import bad, short
from carina.volume.voxels import open_voxels, unreadable_voxels

HEADER_BYTES = 1 << 20
"""No header is longer."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)


def read_head(path: Path) -> bytes:
    """The part of a file in which its header must end.

    Raises:
        BadSeries: the file can't be read.
    """
    with open_voxels(path) as file:
        try:
            return file.read(HEADER_BYTES)
        except OSError as error:
            raise unreadable_voxels(path, error) from error


def lines(head: bytes) -> Iterator[tuple[bytes, int]]:
    """Each line without its end, and the place behind it."""
    start = 0
    while start < len(head):
        end = head.find(b"\n", start)
        stop = len(head) if end < 0 else end
        yield head[start:stop].removesuffix(b"\r"), stop + 1
        start = stop + 1


def whole_numbers(path: Path, key: str, text: str) -> list[int]:
    """Whole numbers with white space between them.

    Raises:
        BadSeries: ``file.unreadable``, it is something else.
    """
    words = text.split()
    if not words or not all(_WHOLE.fullmatch(word) for word in words):
        raise _wrong(path, key, text, "whole numbers")
    return [int(word) for word in words]


def plain_numbers(path: Path, key: str, text: str, count: int) -> list[float]:
    """So many numbers with white space between them; NaN and infinity are numbers here.

    Raises:
        BadSeries: ``file.unreadable``, there are others, or another count.
    """
    words = text.split()
    if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
        raise _wrong(path, key, text, f"{count} numbers")
    return [float(word) for word in words]


def _wrong(path: Path, key: str, text: str, expected: str) -> BadSeries:
    return bad(path, "unreadable", f"{key} is {short(text)!r}, expected {expected}; correct the header.")
