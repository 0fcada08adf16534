"""Slices that are there twice: the second copy is left out, whatever its transfer syntax."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from carina.dicom.decode import open_pixels
from carina.dicom.headers import SliceHeader
from carina.errors import BadSeries


def without_copies(group: Sequence[SliceHeader]) -> tuple[tuple[SliceHeader, ...], tuple[SliceHeader, ...]]:
    """A group's slices without those that repeat an earlier one, and the latter.

    A slice repeats another of a different file that lies at the same position, has the same SOP Instance UID (or no
    attribute that tells the two apart), and holds the same values. Pixels are decoded only to compare those.
    """
    crowds: dict[object, list[SliceHeader]] = defaultdict(list)
    for header in group:
        crowds[header.position_mm or header.sop_instance_uid].append(header)
    dropped: set[int] = set()
    for crowd in crowds.values():
        if len(crowd) > 1:
            dropped |= _repeats(crowd)
    kept = tuple(header for header in group if id(header) not in dropped)
    return kept, tuple(header for header in group if id(header) in dropped)


def _repeats(crowd: Sequence[SliceHeader]) -> set[int]:
    """The identities of those that repeat an earlier one of slices at one position."""
    digests: dict[int, str] = {}
    kept: list[SliceHeader] = []
    repeats: set[int] = set()
    for header in crowd:
        rivals = [one for one in kept if _may_repeat(header, one)]
        for one in (header, *rivals) if rivals else ():
            digests.setdefault(id(one), _voxels(one))
        if any(digests[id(header)] and digests[id(header)] == digests[id(one)] for one in rivals):
            repeats.add(id(header))
        else:
            kept.append(header)
    return repeats


def _may_repeat(header: SliceHeader, other: SliceHeader) -> bool:
    if header.path == other.path or (header.rows, header.columns) != (other.rows, other.columns):
        return False
    is_same = bool(header.sop_instance_uid) and header.sop_instance_uid == other.sop_instance_uid
    return header.apart == other.apart or (is_same and header.frame == other.frame)


def _voxels(header: SliceHeader) -> str:
    """A digest of a slice's values and of what they mean; empty where they can't be read, and then like no other."""
    if header.faults:
        return ""
    try:
        stored = open_pixels(header.path).stored(header.frame)
    except BadSeries:
        return ""
    return f"{hashlib.sha256(stored.astype(np.int32).tobytes()).hexdigest()} {header.slope} {header.intercept}"
