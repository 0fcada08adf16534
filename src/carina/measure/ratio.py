"""The lesion to lung volume ratio, whole and by region, measured on joined masks (``carina.measure.joined``).

Every volume is a count of voxels of these masks, so anyone who has them can count again: lesions lie in the lungs, and
the ratio can't exceed 100 percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carina.measure.chest import ENDS_IN_THE_MIDDLE, ENDS_INSIDE, ends_inside
from carina.measure.findings import LesionSite, RatioFindings, RegionFindings
from carina.measure.joined import join_masks, same_grid
from carina.measure.key_slices import choose_slices
from carina.measure.lesion_sites import sites_within
from carina.measure.lungs import SIDE_NAMES, with_sides
from carina.measure.thirds import THIRDS, THIRDS_NOT_TOLD, LungHeights, third_heights
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Box, Flags, Labels, bounding_box


def lesion_ratio(lesion: Mask, lung: Mask, volume: Volume | None = None) -> RatioFindings:
    """Measure lungs and lesions in ml, their ratio in percent, and mean HU when the CT is given.

    The masks are joined first, which changes nothing where they are already. Regions are both lungs, each lung, and
    the thirds of each lung's height, which are left out, with a warning, where less than half of that is in view. Where
    the scan ends inside the lungs a warning says so, whoever made the mask. A
    lung mask whose names tell left from right is taken at its word, any other is split. ``lesion_count`` is the number
    of connected lesions (26 neighbours) of at least 0.1 ml.

    Raises:
        ModelFailed: the masks, or the CT, lie on different grids; the message describes both.
    """
    joined = join_masks(lesion, lung)
    lung, lesion = joined.lung, joined.lesion
    if volume is not None:
        same_grid("CT", volume.grid, "lung mask", lung.grid)
    warnings = tuple(dict.fromkeys((*lung.warnings, *lesion.warnings)))
    box = bounding_box(lung.labels)
    regions = [_region(name, _NOTHING, lung.grid) for name in _region_names()]
    sites: tuple[LesionSite, ...] = ()
    if box is None:
        warnings = (*warnings, "No lung was found, so there is no ratio.")
    else:
        marked = lesion.labels[box] > 0
        sides = with_sides(lung, box)
        heights = third_heights(lung, sides, box)
        sums = _sums(sides, marked, heights, None if volume is None else volume.hu[box])
        warnings = (*warnings, *_not_in_view(lung, box, heights, warnings))
        regions = [_region(name, sums.of(name), lung.grid) for name in _region_names(heights.names)]
        sites = sites_within(marked, sides, heights, box, lung.grid)
    return RatioFindings(
        uid=lung.uid,
        regions=tuple(regions),
        lesion_count=len(sites),
        lesions=sites,
        lesion_made_by=lesion.made_by,
        lung_made_by=lung.made_by,
        key_slices=() if box is None else choose_slices(volume, lung, lesion),
        warnings=warnings,
    )


def _not_in_view(lung: Mask, box: Box, heights: LungHeights, said: Sequence[str]) -> tuple[str, ...]:
    """That lungs lie beyond the scan, where who made the mask did not say so already."""
    if not heights.are_told:
        return (THIRDS_NOT_TOLD,)
    is_said = ENDS_INSIDE in said or ENDS_IN_THE_MIDDLE in said
    return (ENDS_INSIDE,) if not is_said and ends_inside(lung, box) else ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Total:
    """Voxel counts and HU sums of lung (lesions included) and lesion; the sums are None without a CT."""

    lung: int
    lesion: int
    lung_hu: float | None
    lesion_hu: float | None


_NOTHING = _Total(lung=0, lesion=0, lung_hu=None, lesion_hu=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """Counts and HU sums by ``(lesion or not, third, side)``."""

    counts: npt.NDArray[np.int64]
    hu: npt.NDArray[np.float64] | None

    def of(self, name: str) -> _Total:
        side: int | slice = slice(1, None)
        third: int | slice = slice(None)
        for label, word in SIDE_NAMES.items():
            if name.startswith(word):
                side = label
        for index, word in enumerate(THIRDS):
            if name.endswith(word):
                third = index
        counts = self.counts[:, third, side].reshape(2, -1).sum(axis=1)
        hu = None if self.hu is None else self.hu[:, third, side].reshape(2, -1).sum(axis=1)
        return _Total(
            lung=int(counts.sum()),
            lesion=int(counts[1]),
            lung_hu=None if hu is None else float(hu.sum()),
            lesion_hu=None if hu is None else float(hu[1]),
        )


def _sums(sides: Labels, lesion: Flags, heights: LungHeights, hu: npt.NDArray[np.int16] | None) -> _Sums:
    """Count voxels and sum HU plane by plane, so that nothing larger than a plane is made."""
    counts = np.zeros(18, dtype=np.int64)
    total = None if hu is None else np.zeros(18)
    for index, plane in enumerate(sides):
        where = plane > 0
        side = plane[where].astype(np.intp)
        third = heights.thirds(index, where, side)
        code = (lesion[index][where] * 3 + third) * 3 + side
        counts += np.bincount(code, minlength=18)
        if hu is not None and total is not None:
            total += np.bincount(code, weights=hu[index][where], minlength=18)
    return _Sums(counts=counts.reshape(2, 3, 3), hu=None if total is None else total.reshape(2, 3, 3))


def _region_names(thirds: Sequence[str] = THIRDS) -> list[str]:
    sides = list(SIDE_NAMES.values())
    return ["lungs", *sides, *(f"{side} {third}" for side in sides for third in reversed(thirds))]


def _region(name: str, total: _Total, grid: Grid) -> RegionFindings:
    def mean(total_hu: float | None, count: int) -> float | None:
        return None if total_hu is None or not count else total_hu / count

    return RegionFindings(
        region=name,
        lung_ml=total.lung * grid.voxel_ml,
        lesion_ml=total.lesion * grid.voxel_ml,
        ratio_percent=100 * total.lesion / total.lung if total.lung else 0.0,
        lung_mean_hu=mean(total.lung_hu, total.lung),
        lesion_mean_hu=mean(total.lesion_hu, total.lesion),
    )
