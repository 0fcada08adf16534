"""Whether two files hold the same instance, though its bytes differ: what passes through a sender is encoded anew.

DCMTK's storescu gives sequences a length, others take it away; a peer that agrees on another byte order or on implicit
VR sends the same values in other bytes; an archive that is asked for a series may compress or decompress its pixels.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from carina.dicom.decode import open_pixels
from carina.dicom.syntaxes import DEFLATED, EXPLICIT, IMPLICIT
from carina.dicom.whole_file import read_whole
from carina.errors import BadSeries

TRAILING_PADDING = 0xFFFCFFFC

_PIXELS = {0x7FE00001, 0x7FE00002, 0x7FE00003, 0x7FE00010}
"""Pixel Data, and where its frames lie (PS3.3 C.7.6.3)."""

_SAME_BYTES = {IMPLICIT, EXPLICIT, DEFLATED}
"""Transfer syntaxes in which the same pixels are the same bytes."""

_NOT_READ = (
    AttributeError,
    BadSeries,
    EOFError,
    InvalidDicomError,
    KeyError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on what it can't follow; two such files are not compared."""


def is_same_object(one: Path, other: Path) -> bool:
    """Whether two files have the same elements with the same values; pixels in two encodings are compared decoded."""
    try:
        first, second = _content(one), _content(other)
        if first == second:
            return True
        return _without_pixels(first) == _without_pixels(second) and _is_same_picture(one, other)
    except _NOT_READ:
        return False


def _content(file: Path) -> Dataset:
    """A file's data set without what only encodes it: group lengths (PS3.5 7.2) and padding at its end."""
    dataset = read_whole(file)
    for tag in [tag for tag in dataset.keys() if tag.element == 0 or tag == TRAILING_PADDING]:  # noqa: SIM118
        del dataset[tag]
    return Dataset(dict(dataset.items()))


def _without_pixels(dataset: Dataset) -> Dataset:
    return Dataset({tag: element for tag, element in dataset.items() if tag not in _PIXELS})


def _is_same_picture(one: Path, other: Path) -> bool:
    """Whether pixels that are encoded in two ways are the same numbers, frame by frame."""
    first, second = open_pixels(one), open_pixels(other)
    if len(first.slices) != len(second.slices):
        return False
    if {first.opened.transfer_syntax, second.opened.transfer_syntax} <= _SAME_BYTES:
        return False
    frames = range(1, len(first.slices) + 1)
    return all(np.array_equal(first.stored(frame), second.stored(frame)) for frame in frames)
