"""The CT and its masks as NIfTI for the volume viewer: a quarter of the resolution first, then all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import BadConfig
from carina.service.viewer.opened import OpenedRun
from carina.volume.arrays import Labels
from carina.volume.grid import Grid
from carina.volume.volume import Mask
from carina.volume.write import nifti_parts

QUARTER_MM = 2.8
MOST_STEPS = 4
"""A quarter: at most every fourth voxel along an axis, and no axis coarser than it must be."""

QUARTER, WHOLE = "quarter", "full"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One image of a scene: voxels on a grid, a mask's being 0 and 1."""

    array: npt.NDArray[Any]
    grid: Grid

    def parts(self, *, compress: bool) -> Iterator[bytes]:
        """The NIfTI file, part by part."""
        return nifti_parts(self.array, self.grid, compress=compress)


def coarse_steps(grid: Grid) -> tuple[int, int, int]:
    """How many voxels along ``(z, y, x)`` become one in the quarter."""
    z, y, x = (
        min(MOST_STEPS, count, max(1, round(QUARTER_MM / step)))
        for step, count in zip(grid.spacing_mm, grid.shape, strict=True)
    )
    return z, y, x


def layer_of(opened: OpenedRun, size: str, name: str) -> Layer:
    """``ct``, or ``marks``: 0 nothing, 1 lung, 2 its surface, 3 lesion, 4 its surface.

    Raises:
        BadConfig: ``viewer.layer``: there is no such size or layer in this run.
    """
    if size not in (QUARTER, WHOLE) or name not in ("ct", "marks"):
        raise BadConfig("viewer.layer", f"{size}/{name}: expected {QUARTER} or {WHOLE}, and ct or marks.")
    images = opened.images
    if name == "ct":
        return opened.once(f"{size} ct", lambda: _sized(images.volume.hu, images.volume.grid, size))
    masks = images.lung, images.lesion
    if masks == (None, None):
        raise BadConfig("viewer.layer", "marks: this run made no mask.")
    return opened.once(f"{size} marks", lambda: _marks(masks, images.volume.grid, size))


def _marks(masks: Sequence[Mask | None], grid: Grid, size: str) -> Layer:
    """Both masks as one; a lesion lies over the lung."""
    marks = _sized(np.zeros(grid.shape, np.uint8), grid, size)
    for number, mask in enumerate(masks):
        if mask is not None:
            flags = _sized((mask.labels > 0).view(np.uint8), grid, size).array
            np.copyto(marks.array, flags * np.uint8(2 * number + 1) + _surface(flags), where=flags > 0)
    return marks


def _surface(flags: Labels) -> Labels:
    """The voxels of a mask that have a face to the outside."""
    inner = ndimage.minimum_filter(flags, footprint=ndimage.generate_binary_structure(3, 1), mode="nearest")
    return (flags > inner).view(np.uint8)


def _sized(array: npt.NDArray[Any], grid: Grid, size: str) -> Layer:
    layer = Layer(array=array, grid=grid)
    return _quarter(layer) if size == QUARTER else layer


def _quarter(layer: Layer) -> Layer:
    """Blocks of voxels as one: the mean of HU, of a mask whether at least half of the block is in it."""
    grid, steps = layer.grid, coarse_steps(layer.grid)
    sums: npt.NDArray[Any] = layer.array
    for axis in (2, 1, 0):
        sums = _summed(sums, axis, steps[axis])
    size = int(np.prod(steps))
    is_mask = layer.array.dtype == np.uint8
    array = (2 * sums >= size).view(np.uint8) if is_mask else np.rint(sums / np.float32(size)).astype(np.int16)
    middle = [(step - 1) / 2 for step in steps]
    x, y, z = (float(value) for value in grid.points_mm(middle))
    z_mm, y_mm, x_mm = (mm * step for mm, step in zip(grid.spacing_mm, steps, strict=True))
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return Layer(array=array, grid=replace(grid, shape=shape, spacing_mm=(z_mm, y_mm, x_mm), origin_mm=(x, y, z)))


def _summed(array: npt.NDArray[Any], axis: int, step: int) -> npt.NDArray[Any]:
    """Sums of ``step`` neighbours along an axis; what is left over at its end is left out."""
    count = array.shape[axis] // step

    def every(first: int) -> npt.NDArray[Any]:
        part = [slice(None)] * 3
        part[axis] = slice(first, first + count * step, step)
        return array[tuple(part)]

    total = every(0).astype(np.int32)
    for first in range(1, step):
        total += every(first)
    return total
