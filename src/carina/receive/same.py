"""Whether two files hold the same instance, though its bytes differ: what passes through a sender is encoded anew.

DCMTK's storescu gives sequences a length, others take it away; a peer that agrees on another byte order or on implicit
VR sends the same values in other bytes.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

TRAILING_PADDING = 0xFFFCFFFC

_NOT_READ = (
    AttributeError,
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
    """Whether two files have the same elements with the same values; compressed pixels are compared as they are."""
    try:
        return _content(one) == _content(other)
    except _NOT_READ:
        return False


def _content(file: Path) -> Dataset:
    """A file's data set without what only encodes it: group lengths (PS3.5 7.2) and padding at its end."""
    dataset = dcmread(file)
    for tag in [tag for tag in dataset.keys() if tag.element == 0 or tag == TRAILING_PADDING]:  # noqa: SIM118
        del dataset[tag]
    return Dataset(dict(dataset.items()))
