"""The lesion to lung volume ratio, whole and by region.

What counts: a lesion often reaches the pleura, where lung masks tend to leave dense tissue out. So a connected lesion
that lies at least half in the lung mask counts whole, its voxels outside are added to the lung, and the ratio can't
exceed 100 percent. Of any other only what lies in the lung counts, and a warning says how much was left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import ModelFailed
from carina.measure.findings import RatioFindings, RegionFindings
from carina.measure.key_slices import choose
from carina.measure.lungs import LEFT, RIGHT, SIDE_NAMES, bounding_box, with_sides, world_axis
from carina.volume import Grid, Mask, Volume
from carina.volume.arrays import Box, Flags, Labels

WHOLE_SHARE = 0.5
"""A connected lesion counts whole where at least this share of it lies in the lung mask."""

SMALLEST_LESION_ML = 0.1
"""Connected lesions below this are measured but not counted."""

THIRDS = ("lower third", "middle third", "upper third")
"""Thirds of a lung's height in the patient, from its feet upwards."""


def lesion_ratio(lesion: Mask, lung: Mask, volume: Volume | None = None) -> RatioFindings:
    """Measure lungs and lesions in ml, their ratio in percent, and mean HU when the CT is given.

    Regions are both lungs, each lung, and the thirds of each lung's height. Lungs include lesions that lie mostly in
    them (see the module). A lung mask whose names tell left from right is taken at its word, any other is split.
    ``lesion_count`` is the number of connected lesions (26 neighbours) of at least 0.1 ml.

    Raises:
        ModelFailed: the masks, or the CT, lie on different grids; the message describes both.
    """
    _same_grid("lesion mask", lesion.grid, "lung mask", lung.grid)
    if volume is not None:
        _same_grid("CT", volume.grid, "lung mask", lung.grid)
    made_by = tuple(name for name in (lesion.made_by, lung.made_by) if name)
    box = bounding_box(lung.labels)
    if box is None:
        regions = tuple(_region(name, _NOTHING, lung.grid) for name in _region_names())
        warning = "No lung was found, so there is no ratio." + ("" if lesion.is_empty else " Lesions were left out.")
        return RatioFindings(
            uid=lung.uid, regions=regions, lesion_count=0, made_by=made_by, warnings=(*lung.warnings, warning)
        )
    found = _counted(lesion, lung)
    box = _union(box, found.box)
    counted = found.within(box)
    sides = with_sides(lung, counted, box)
    hu = None if volume is None else volume.hu[box]
    sums = _sums(sides, counted, _third_borders(sides, lung.grid, box), hu)
    return RatioFindings(
        uid=lung.uid,
        regions=tuple(_region(name, sums.of(name), lung.grid) for name in _region_names()),
        lesion_count=found.count,
        made_by=made_by,
        key_slices=choose(volume, _whole(lung, sides, box), _whole(lesion, counted, box)),
        warnings=(*lung.warnings, *found.warnings),
    )


def _whole(mask: Mask, part: Labels | Flags, box: Box) -> Mask:
    """The mask with only ``part``, which fills ``box``, in it."""
    labels = np.zeros(mask.grid.shape, dtype=np.uint8)
    labels[box] = part
    return replace(mask, labels=labels)


def _same_grid(name: str, grid: Grid, other_name: str, other: Grid) -> None:
    if not grid.same_place(other):
        raise ModelFailed(
            "measure.grids",
            f"The {name} ({_describe(grid)}) and the {other_name} ({_describe(other)}) lie on different grids; "
            "resample one onto the other's grid before measuring.",
        )


def _describe(grid: Grid) -> str:
    shape = " x ".join(str(count) for count in grid.shape)
    spacing = " x ".join(f"{step:g}" for step in grid.spacing_mm)
    origin = ", ".join(f"{value:g}" for value in grid.origin_mm)
    return f"{shape} voxels of {spacing} mm from ({origin}) mm"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counted:
    """The lesions that count: voxels of a block, how many there are, and what was left out."""

    flags: Flags
    box: Box | None
    count: int
    warnings: tuple[str, ...] = ()

    def within(self, box: Box) -> Flags:
        """The same voxels in a larger block."""
        flags = np.zeros(tuple(part.stop - part.start for part in box), dtype=np.bool_)
        if self.box is not None:
            inner = zip(self.box, box, strict=True)
            flags[tuple(slice(own.start - outer.start, own.stop - outer.start) for own, outer in inner)] = self.flags
        return flags


def _counted(lesion: Mask, lung: Mask) -> _Counted:
    box = bounding_box(lesion.labels)
    if box is None:
        return _Counted(flags=np.zeros((0, 0, 0), dtype=np.bool_), box=None, count=0)
    flags = lesion.labels[box] > 0
    inside = flags & (lung.labels[box] > 0)
    labels, count = ndimage.label(flags, structure=np.ones((3, 3, 3), dtype=np.bool_))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    inner = np.bincount(labels[inside], minlength=count + 1)
    whole = inner >= WHOLE_SHARE * sizes
    whole[0] = False
    counted = whole[labels] | inside
    lost_ml = float(np.count_nonzero(flags) - np.count_nonzero(counted)) * lung.grid.voxel_ml
    warnings = (f"{lost_ml:.2f} ml marked as lesion outside the lungs do not count in the ratio.",) if lost_ml else ()
    large = np.where(whole, sizes, inner)[1:] * lung.grid.voxel_ml >= SMALLEST_LESION_ML
    return _Counted(flags=counted, box=box, count=int(np.count_nonzero(large)), warnings=warnings)


def _union(box: Box, other: Box | None) -> Box:
    if other is None:
        return box
    z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
    return z, y, x


@dataclass(frozen=True, kw_only=True, eq=False)
class _Heights:
    """Height of every voxel of a block as three lines to be summed, and the two borders of each side's thirds."""

    lines: tuple[npt.NDArray[np.float64], ...]
    borders: npt.NDArray[np.float32]


def _third_borders(sides: Labels, grid: Grid, box: Box) -> _Heights:
    lines = world_axis(grid, box, 2)
    plane = (lines[1][:, None] + lines[2]).astype(np.float32)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index, height in enumerate(lines[0]):
        for side in (LEFT, RIGHT):
            found = plane[sides[index] == side]
            if found.size:
                low[side] = min(low[side], height + found.min())
                high[side] = max(high[side], height + found.max())
    low, high = (np.where(np.isfinite(end), end, 0.0) for end in (low, high))
    half_voxel = float(np.abs(grid.affine[2, :3]).sum()) / 2
    third = (high - low + 2 * half_voxel) / 3
    borders = np.stack([low - half_voxel + third, high + half_voxel - third]).astype(np.float32)
    return _Heights(lines=lines, borders=borders)


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


def _sums(sides: Labels, lesion: Flags, heights: _Heights, hu: npt.NDArray[np.int16] | None) -> _Sums:
    """Count voxels and sum HU plane by plane, so that nothing larger than a plane is made."""
    counts = np.zeros(18, dtype=np.int64)
    total = None if hu is None else np.zeros(18)
    plane = (heights.lines[1][:, None] + heights.lines[2]).astype(np.float32)
    for index, height in enumerate(heights.lines[0]):
        where = sides[index] > 0
        side = sides[index][where].astype(np.intp)
        level = plane[where] + np.float32(height)
        third = (level >= heights.borders[0][side]).astype(np.intp) + (level >= heights.borders[1][side])
        code = (lesion[index][where] * 3 + third) * 3 + side
        counts += np.bincount(code, minlength=18)
        if hu is not None and total is not None:
            total += np.bincount(code, weights=hu[index][where], minlength=18)
    return _Sums(counts=counts.reshape(2, 3, 3), hu=None if total is None else total.reshape(2, 3, 3))


def _region_names() -> list[str]:
    sides = list(SIDE_NAMES.values())
    return ["lungs", *sides, *(f"{side} {third}" for side in sides for third in reversed(THIRDS))]


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
