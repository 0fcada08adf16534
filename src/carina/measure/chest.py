"""Whether what a lung mask holds can be the lungs of a chest CT, asked before anything is classified.

A network that was trained on chests calls something lung in every scan: the foam of a headrest, gas in the bowel, the
bases of the lungs above an abdomen. Four facts tell lungs from these: how much aerated lung there is, the HU and the
texture of it, and how much of its height is in view. The limits lie well outside of what was seen in 11 chests
(normal, COVID-19, cancer, contrast, slices of 0.6 to 8 mm; docs/chest-check.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.measure.lungs import LEFT_LUNG, RIGHT_LUNG, SIDE_NAMES, with_sides
from carina.measure.texts import plain_ml_text
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Box, Flags, bounding_box

AERATED_HU = (-950, -500)
"""Air and tissue mixed as in lung. Gas lies below (Gevenois and others, AJRCCM 1996: emphysema from -950 down),
poorly aerated lung above (Gattinoni and others, AJRCCM 2001)."""

LEAST_AERATED_ML = 300.0
"""Less than this is left of adults' lungs only in the worst of ARDS; bowel and stool have less."""

LOWEST_MEDIAN_HU = -970.0
"""Half of a mask below this is gas or foam, even with emphysema in most of it. Chests had medians from -912 to -736."""

LEAST_SPREAD_HU = 65.0
"""From the tenth to the ninetieth percentile, averaged over 3 mm: vessels and gravity spread lungs over 128 to 407 HU,
a synthetic chest over 80 to 90; foam and gas, whatever their noise, stay below 55."""

CUT_SHARE = 0.25
"""Lungs that end the scan with more than this share of their largest cross-section go on far beyond it."""

TOUCHED_SHARE = 0.05
"""With more than this share they go on beyond it at all: 0 to 0.025 in 13 whole chests, 0.14 and 0.43 in two cut."""

ENDS_INSIDE = "The scan ends inside the lungs: what lies beyond it is missing from every volume."
ENDS_IN_THE_MIDDLE = "Less than half of the lungs' height is in view: the scan ends in the middle of them."

LEAST_HEIGHT = 0.33
"""Volume over largest cross-section, over width: 0.47 to 0.63 in whole lungs, 0.21 to 0.39 in halves of them."""

MISSING_SHARE = 0.12
"""A lung with less than this share of all aerated lung is missing, airless or not in view."""

BLOCK_MM = 3.0


@dataclass(frozen=True, kw_only=True)
class ChestCheck:
    """What was measured of a scan's lungs, why they are none (``refusals``), and what is odd about them (``remarks``).

    Volumes in ml. ``median_hu`` is over the mask, ``spread_hu`` from the tenth to the ninetieth percentile of blocks of
    3 mm that lie inside it, ``height`` the volume over the largest cross-section over the width, without unit.
    Sentences are for people; both are empty for lungs that are whole and in view.
    """

    lung_ml: float
    aerated_ml: float
    median_hu: float
    spread_hu: float
    height: float
    refusals: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def is_chest(self) -> bool:
        """Whether a network that was trained on chests may be asked about this scan."""
        return not self.refusals


def check_chest(volume: Volume, lung: Mask) -> ChestCheck:
    """Measure whether a mask that is not empty holds the lungs of a chest CT, most of them in view.

    A lung that is missing or white is a remark; no aerated lung at all, gas or foam, and a small part of the lungs are
    refusals.

    Raises:
        ValueError: the mask is empty.
    """
    box = bounding_box(lung.labels)
    if box is None:
        raise ValueError("an empty mask holds no lungs to check")
    hu, inside = volume.hu[box], lung.labels[box] > 0
    values = hu[inside]
    aerated = inside & (hu > AERATED_HU[0]) & (hu < AERATED_HU[1])
    height, ends = _in_view(lung, box)
    found = ChestCheck(
        lung_ml=values.size * lung.grid.voxel_ml,
        aerated_ml=float(np.count_nonzero(aerated)) * lung.grid.voxel_ml,
        median_hu=float(np.median(values)),
        spread_hu=_spread_hu(hu, inside, lung.grid),
        height=height,
    )
    refusals = _refusals(found, ends)
    remarks = () if refusals else (*_missing_side(lung, aerated, box), *_cut(ends))
    return replace(found, refusals=refusals, remarks=remarks)


_CHECKED: WeakKeyDictionary[Volume, tuple[ref[Any], ChestCheck]] = WeakKeyDictionary()
_LOCK = Lock()


def chest_of(volume: Volume, lung: Mask) -> ChestCheck:
    """As ``check_chest``, measured once for each mask of a volume: who marks the lungs asks, and who classifies.

    Raises:
        ValueError: the mask is empty.
    """
    with _LOCK:
        known = _CHECKED.get(volume)
        if known is None or known[0]() is not lung.labels:
            known = ref(lung.labels), check_chest(volume, lung)
            _CHECKED[volume] = known
        return known[1]


def _refusals(found: ChestCheck, ends: tuple[float, float]) -> tuple[str, ...]:
    said = []
    if found.aerated_ml < LEAST_AERATED_ML:
        said.append(
            f"Only {plain_ml_text(found.aerated_ml)} ml of what was taken for lung has the HU of aerated lung "
            f"({AERATED_HU[0]} to {AERATED_HU[1]}); at least {LEAST_AERATED_ML:.0f} ml expected."
        )
    if found.median_hu < LOWEST_MEDIAN_HU:
        said.append(
            f"What was taken for lung is gas or foam: its median is {found.median_hu:.0f} HU, "
            f"in lungs it lies above {LOWEST_MEDIAN_HU:.0f}."
        )
    if found.spread_hu < LEAST_SPREAD_HU:
        said.append(
            f"What was taken for lung shows no vessels: its HU spread over {found.spread_hu:.0f}, "
            f"in lungs over {LEAST_SPREAD_HU:.0f} or more."
        )
    if _is_less_than_half(found.height, ends):
        said.append(ENDS_IN_THE_MIDDLE)
    return tuple(said)


def shows_half(lung: Mask, box: Box) -> bool:
    """Whether at least half of the lungs' height is in view, told by the mask alone; ``box`` holds all of it."""
    return not _is_less_than_half(*_in_view(lung, box))


def ends_inside(lung: Mask, box: Box) -> bool:
    """Whether the scan ends before the lungs do, told by the mask alone; ``box`` holds all of it."""
    return bool(_cut(_in_view(lung, box)[1]))


def _is_less_than_half(height: float, ends: tuple[float, float]) -> bool:
    return max(ends) > CUT_SHARE and height < LEAST_HEIGHT


def _in_view(lung: Mask, box: Box) -> tuple[float, tuple[float, float]]:
    """Height for width, and the cross-sections at the scan's lower and upper end as shares of the largest."""
    upward, sideways = (_axis(lung.grid, component) for component in (2, 0))
    others = tuple(axis for axis in range(3) if axis != upward)
    counts = np.count_nonzero(lung.labels, axis=others)
    step_mm = lung.grid.spacing_mm
    width_mm = (box[sideways].stop - box[sideways].start) * step_mm[sideways]
    height_mm = float(counts.sum() / counts.max()) * step_mm[upward]
    return height_mm / width_mm, (float(counts[0] / counts.max()), float(counts[-1] / counts.max()))


def _axis(grid: Grid, component: int) -> int:
    """The array axis that runs nearest to a patient axis (0 x, 1 y, 2 z)."""
    return int(np.argmax([abs(axis[component]) for axis in grid.axes]))


def _spread_hu(hu: npt.NDArray[np.int16], inside: Flags, grid: Grid) -> float:
    """The spread of blocks of about 3 mm that lie wholly inside; of all voxels where no block does."""
    steps = [max(1, round(BLOCK_MM / step)) for step in grid.spacing_mm]
    means = _blocks(hu, steps).mean(axis=(1, 3, 5), dtype=np.float32)
    whole: Flags = np.asarray(_blocks(inside, steps).all(axis=(1, 3, 5)), dtype=np.bool_)
    core = np.asarray(ndimage.binary_erosion(whole, _cross_in_plane(grid)), dtype=np.bool_)
    values = next((means[where] for where in (core, whole) if where.any()), hu[inside])
    low, high = np.percentile(values, [10, 90])
    return float(high - low)


def _cross_in_plane(grid: Grid) -> Flags:
    """A block's neighbours across the head-foot axis: the borders along it may be 8 mm apart."""
    cross: Flags = np.asarray(ndimage.generate_binary_structure(3, 1), dtype=np.bool_)
    middle = [slice(None)] * 3
    middle[_axis(grid, 2)] = slice(1, 2)
    return cross[tuple(middle)]


def _blocks(array: npt.NDArray[Any], steps: list[int]) -> npt.NDArray[Any]:
    """A view ``(z, step, y, step, x, step)``; what does not fill a block is left out."""
    counts = [max(1, size // step) for size, step in zip(array.shape, steps, strict=True)]
    steps = [min(step, size) for size, step in zip(array.shape, steps, strict=True)]
    trimmed = array[tuple(slice(0, count * step) for count, step in zip(counts, steps, strict=True))]
    return trimmed.reshape([number for pair in zip(counts, steps, strict=True) for number in pair])


def _missing_side(lung: Mask, aerated: Flags, box: Box) -> tuple[str, ...]:
    sides = with_sides(lung, box)
    counts = np.bincount(sides[aerated], minlength=3)
    total = int(counts[LEFT_LUNG] + counts[RIGHT_LUNG])
    whole_ml, *side_ml = (plain_ml_text(count * lung.grid.voxel_ml) for count in (total, *counts))
    return tuple(
        f"The {SIDE_NAMES[side]} is missing, airless or not in view: {side_ml[side]} of {whole_ml} ml of aerated lung "
        "lie on its side."
        for side in (LEFT_LUNG, RIGHT_LUNG)
        if counts[side] < MISSING_SHARE * total
    )


def _cut(ends: tuple[float, float]) -> tuple[str, ...]:
    if max(ends) <= TOUCHED_SHARE:
        return ()
    return (ENDS_INSIDE,)
