"""Several acquisitions, or reconstructions, under one series: told apart by the attributes in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from carina.dicom.geometry import check_spacing, distances_mm, has_shared_positions
from carina.dicom.headers import APART, SliceHeader
from carina.errors import BadSeries
from carina.volume.arrays import Doubles
from carina.volume.grid import Axes

Group = tuple[SliceHeader, ...]
AcquisitionParts = list[tuple[str, Group]]
"""Slices that make one volume each, with what tells them from the others."""

FEWEST_SLICES = 3
"""Slices that an acquisition between another's has at least."""

INTERLEAVED = 0.5
"""Acquisitions lie between each other where they share more than this part of the smaller one's extent."""


def acquisitions(group: Group, axes: Axes | None) -> AcquisitionParts:
    """The acquisitions among slices of one plane; all of them as one, without a name, where nothing tells them apart.

    They are several where slices share positions, or where each of two lies regularly between the other's. The first
    attribute of ``APART`` that leaves no two slices at one position parts them, else two of them together, the frames
    of reference, the times of acquisition or the instance numbers. ``axes`` is None where a slice has no place.
    """
    if axes is None or len(group) < 2:
        return [("", group)]
    if has_shared_positions(_along(group, axes)):
        found = _by_attributes(group, axes) or _by_frame(group, axes) or _by_order(group, axes)
    else:
        found = _between_each_other(group, axes)
    return found or [("", group)]


def _along(group: Iterable[SliceHeader], axes: Axes) -> Doubles:
    return distances_mm([header.position_mm or (0.0, 0.0, 0.0) for header in group], axes)


def _parts(group: Group, index: int) -> AcquisitionParts:
    """The slices by their value of an attribute."""
    parts: dict[str, list[SliceHeader]] = {}
    for header in group:
        parts.setdefault(header.apart[index], []).append(header)
    return [(f"{APART[index]} {value or 'empty'}", tuple(part)) for value, part in parts.items()]


def _telling(group: Group, axes: Axes) -> Iterator[AcquisitionParts]:
    """Ways to part slices by one attribute, the largest part having at least half of the positions."""
    places = len({round(float(at), 1) for at in _along(group, axes)})
    for index in range(len(APART)):
        parts = _parts(group, index)
        if len(parts) > 1 and max(len(part) for _, part in parts) >= max(2, places / 2):
            yield parts


def _are_apart(parts: AcquisitionParts, axes: Axes) -> bool:
    return not any(has_shared_positions(_along(part, axes)) for _, part in parts)


def _by_attributes(group: Group, axes: Axes) -> AcquisitionParts:
    ways = list(_telling(group, axes))
    return next((parts for parts in ways if _are_apart(parts, axes)), []) or _by_two(ways, axes)


def _by_two(ways: Sequence[AcquisitionParts], axes: Axes) -> AcquisitionParts:
    """Two attributes together: two acquisitions, say, each reconstructed with two kernels."""
    for parts in ways:
        both = [(f"{name}, {inner}", part) for name, whole in parts for inner, part in _first_apart(whole, axes)]
        if _are_apart(both, axes):
            return [(name.removesuffix(", "), part) for name, part in both]
    return []


def _first_apart(group: Group, axes: Axes) -> AcquisitionParts:
    if not has_shared_positions(_along(group, axes)):
        return [("", group)]
    return next((parts for parts in _telling(group, axes) if _are_apart(parts, axes)), [("", group)])


def _by_frame(group: Group, axes: Axes) -> AcquisitionParts:
    """Positions in different frames of reference have nothing to do with each other (PS3.3 C.7.4.1)."""
    frames = sorted({header.frame_of_reference_uid for header in group})
    parts = [
        (f"frame of reference {number}", tuple(h for h in group if h.frame_of_reference_uid == frame))
        for number, frame in enumerate(frames, start=1)
    ]
    is_telling = 1 < len(parts) <= len(group) / FEWEST_SLICES
    return parts if is_telling and _are_apart(parts, axes) else []


def _by_order(group: Group, axes: Axes) -> AcquisitionParts:
    """One pass over the patient after the other, in the order of the times, else of the instance numbers."""
    passes = _passes(group, [header.acquired for header in group], axes)
    if passes:
        return [(f"pass {number} of {len(passes)}", part) for number, part in enumerate(passes, start=1)]
    numbers = ["" if h.instance_number is None else f"{h.instance_number:012d}" for h in group]
    return [(f"instances from {part[0].instance_number} on", part) for part in _passes(group, numbers, axes)]


def _passes(group: Group, keys: Sequence[str], axes: Axes) -> list[Group]:
    """Passes that part slices at one position, each later than the one before and with half of the positions.

    ``keys`` says when each slice came; nothing is known where one of them is empty.
    """
    ordered = sorted(range(len(group)), key=lambda k: keys[k])
    along = np.round(_along(group, axes), 1)[ordered].tolist()
    starts = _starts(along)
    passes = [tuple(group[k] for k in ordered[a:b]) for a, b in pairwise([*starts, len(group)])]
    fewest = max(2, len(set(along)) / 2)
    is_in_turn = all("" < keys[ordered[start - 1]] < keys[ordered[start]] for start in starts[1:])
    is_whole = len(passes) > 1 and min(map(len, passes)) >= fewest
    return passes if is_in_turn and is_whole and _are_apart([("", part) for part in passes], axes) else []


def _starts(along_mm: Sequence[float]) -> list[int]:
    """Where a pass begins: at a place where the pass before has been already."""
    starts, seen = [0], set[float]()
    for number, at in enumerate(along_mm):
        if at in seen:
            starts.append(number)
            seen = set()
        seen.add(at)
    return starts


def _between_each_other(group: Group, axes: Axes) -> AcquisitionParts:
    """Acquisitions whose slices lie between each other's, each of them regular by itself."""
    for parts in _telling(group, axes):
        ranges = [_along(part, axes) for _, part in parts]
        if all(_is_regular(one) for one in ranges) and all(_overlap(one, ranges) for one in ranges):
            return parts
    return []


def _is_regular(along_mm: Doubles) -> bool:
    if len(along_mm) < FEWEST_SLICES:
        return False
    try:
        check_spacing(np.sort(along_mm), [""] * len(along_mm))
    except BadSeries:
        return False
    return True


def _overlap(one: Doubles, all_mm: Sequence[Doubles]) -> bool:
    """Whether a range shares most of its extent, or of another's, with another."""
    others = (other for other in all_mm if other is not one)
    return any(_shared_mm(one, other) > INTERLEAVED * min(np.ptp(one), np.ptp(other)) for other in others)


def _shared_mm(one: Doubles, other: Doubles) -> float:
    return float(min(one.max(), other.max()) - max(one.min(), other.min()))
