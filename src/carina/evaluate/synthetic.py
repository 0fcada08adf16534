"""Unseen synthetic lesions of one kind and of every size class, many in one lung, each in a place of its own.

Arrays are ``(z, y, x)`` in a case's order. Each lesion is scaled until its mask, as the lung cuts it, has a volume of
the class; lesions keep apart, so that each can be judged by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from carina.cases.case import Case
from carina.measure.agreement import dice
from carina.synth import lesions
from carina.synth.lesions import Size
from carina.volume.arrays import Box, Flags, Floats, bounding_box, grown_box

LESIONS_APART_MM = 8.0
"""Between the boxes of two lesions at least; half of it around a lesion's box is where the lesion is judged."""

CANDIDATES = 80
"""Places that are tried."""

FITTINGS = 3
"""How often a lesion is scaled towards the volume that it should have."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Volumes in ml that are drawn for a class (evenly in their logarithm), and how many lesions are wanted."""

    low_ml: float
    high_ml: float
    count: int


_CLASSES = {
    Size.SMALL: _Drawn(low_ml=0.15, high_ml=1.0, count=16),
    Size.MEDIUM: _Drawn(low_ml=1.0, high_ml=10.0, count=8),
    Size.LARGE: _Drawn(low_ml=10.0, high_ml=80.0, count=3),
}


_ORDER = (Size.LARGE, Size.MEDIUM, Size.SMALL)
"""The large ones find room first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """Lungs with lesions: HU (float32), lesions' numbers from 1 (int16, 0 elsewhere), the box and class of each."""

    hu: Floats
    numbers: npt.NDArray[np.int16]
    boxes: tuple[Box, ...]
    sizes: tuple[Size, ...]


def candidates(case: Case, kind: lesions.Kind, rng: np.random.Generator) -> list[lesions.DrawnLesion]:
    """Lesions of one kind to choose from, for every size class; places are drawn on every other voxel in the plane."""
    box = bounding_box(case.lungs)
    if box is None:
        return []
    lung = case.lungs[box][:, ::2, ::2] > 0
    z, y, x = case.spacing_mm
    drawn = lesions.draw_lesions(lung, (z, 2 * y, 2 * x), rng, count=CANDIDATES, kind=kind)
    return [_moved(lesion, box) for lesion in drawn]


def _moved(lesion: lesions.DrawnLesion, box: Box) -> lesions.DrawnLesion:
    z, y, x = (part.start + step * c for part, step, c in zip(box, (1, 2, 2), lesion.centre, strict=True))
    return replace(lesion, centre=(z, y, x))


def place(
    case: Case, drawn: Sequence[lesions.DrawnLesion], rng: np.random.Generator, *, sizes: Sequence[Size] = _ORDER
) -> Placed:
    """Put as many of ``drawn`` into a case's lungs as each class wants and room allows, scaled to their class."""
    hu = case.hu.astype(np.float32)
    numbers = np.zeros(hu.shape, dtype=np.int16)
    boxes: list[Box] = []
    placed: list[Size] = []
    for size in sizes:
        for lesion in drawn:
            if placed.count(size) == _CLASSES[size].count:
                break
            pasted = _fitted(case, hu, lesion, _CLASSES[size], rng)
            if pasted is None:
                continue
            box, new, mask = pasted
            inner = bounding_box(mask)
            if inner is None:
                continue
            own = _shifted(inner, box)
            if _meets(_around(own, case.spacing_mm, LESIONS_APART_MM, hu.shape), boxes):
                continue
            hu[box] = new
            boxes.append(own)
            placed.append(size)
            numbers[box][mask] = len(boxes)
    return Placed(hu=hu, numbers=numbers, boxes=tuple(boxes), sizes=tuple(placed))


def dice_of_size(found: Flags, placed: Placed, size: Size, spacing_mm: Sequence[float]) -> float:
    """Dice over the whole lungs, the places of lesions of other classes left out: all else marked counts as wrong."""
    seen, truth = found.copy(), np.zeros(found.shape, dtype=np.bool_)
    for number, (box, own) in enumerate(zip(placed.boxes, placed.sizes, strict=True), start=1):
        if own is size:
            truth[box] |= placed.numbers[box] == number
        else:
            seen[_around(box, spacing_mm, LESIONS_APART_MM / 2, seen.shape)] = False
    return dice(seen, truth)


def dice_by_lesion(found: Flags, placed: Placed, size: Size, spacing_mm: Sequence[float]) -> list[float]:
    """Dice of each lesion of a class in its place: its box and half of ``APART_MM`` around it."""
    values = []
    for number, (box, own) in enumerate(zip(placed.boxes, placed.sizes, strict=True), start=1):
        if own is size:
            zone = _around(box, spacing_mm, LESIONS_APART_MM / 2, found.shape)
            values.append(dice(found[zone], placed.numbers[zone] == number))
    return values


def _fitted(
    case: Case, hu: Floats, lesion: lesions.DrawnLesion, limits: _Drawn, rng: np.random.Generator
) -> tuple[Box, Floats, Flags] | None:
    """A block of the volume with the lesion in it, at a volume drawn for its class; None where it does not come out."""
    target_ml = float(np.exp(rng.uniform(np.log(limits.low_ml), np.log(limits.high_ml))))
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    volume_ml = float(np.prod(lesion.radii_mm)) * 4 / 3 * np.pi / 1000
    seed = int(rng.integers(2**32))
    for _ in range(FITTINGS):
        lesion = _scaled(lesion, float(np.clip((target_ml / volume_ml) ** (1 / 3), 0.2, 5.0)))
        box, local = _block(lesion, hu.shape, case.spacing_mm)
        new, mask = lesions.paste(hu[box], case.lungs[box] > 0, case.spacing_mm, [local], np.random.default_rng(seed))
        volume_ml = max(float(np.count_nonzero(mask)) * voxel_ml, 0.01)
        if limits.low_ml <= volume_ml < limits.high_ml and abs(np.log(volume_ml / target_ml)) < np.log(1.25):
            return box, new, mask
    return None


def _scaled(lesion: lesions.DrawnLesion, factor: float) -> lesions.DrawnLesion:
    z, y, x = (radius * factor for radius in lesion.radii_mm)
    return replace(lesion, radii_mm=(z, y, x))


def _block(
    lesion: lesions.DrawnLesion, shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[Box, lesions.DrawnLesion]:
    """The block that pasting a lesion reaches, and the lesion in the block's voxels."""
    reach = 1.6 * max(lesion.radii_mm) + 2 * lesion.border_mm
    parts = [
        slice(max(0, int(c - reach / s)), min(n, int(c + reach / s) + 2))
        for n, c, s in zip(shape, lesion.centre, spacing_mm, strict=True)
    ]
    z, y, x = (c - part.start for c, part in zip(lesion.centre, parts, strict=True))
    return (parts[0], parts[1], parts[2]), replace(lesion, centre=(z, y, x))


def _meets(box: Box, others: Sequence[Box]) -> bool:
    """Whether a box shares a voxel with one of the others."""
    return any(all(a.start < b.stop and b.start < a.stop for a, b in zip(box, other, strict=True)) for other in others)


def _shifted(inner: Box, outer: Box) -> Box:
    z, y, x = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(inner, outer, strict=True))
    return (z, y, x)


def _around(box: Box, spacing_mm: Sequence[float], margin_mm: float, shape: Sequence[int]) -> Box:
    return grown_box(box, [round(margin_mm / step) for step in spacing_mm], shape)
