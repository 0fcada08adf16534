"""A volume made coarse by averaging: each voxel the mean of whole voxels, so that noise and vessels average out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.volume.grid import Grid, Triple


def averaged(array: npt.NDArray[Any], grid: Grid, spacing_mm: Triple) -> tuple[npt.NDArray[np.float32], Grid]:
    """Means of blocks of as many whole voxels as fit into ``spacing_mm`` ``(z, y, x)``, and their grid.

    Voxels that fill no block at the far end of an axis are left out.
    """
    sides = [
        max(1, min(count, int(wanted / own + 1e-6)))
        for wanted, own, count in zip(spacing_mm, grid.spacing_mm, grid.shape, strict=True)
    ]
    summed: npt.NDArray[Any] = array
    for axis in sorted(range(3), key=lambda axis: -sides[axis]):  # what shrinks most first: little memory
        summed = _blocks_summed(summed, axis, sides[axis])
    first = [(side - 1) / 2 for side in sides]
    x, y, z = (float(v) for v in grid.points_mm(first))
    dz, dy, dx = (own * side for own, side in zip(grid.spacing_mm, sides, strict=True))
    means = (summed / np.float32(np.prod(sides))).astype(np.float32)
    return means, replace(grid, shape=means.shape, spacing_mm=(dz, dy, dx), origin_mm=(x, y, z))


def _blocks_summed(array: npt.NDArray[Any], axis: int, side: int) -> npt.NDArray[Any]:
    """Sums of ``side`` neighbours along ``axis``, int32 (float32 where the array is)."""
    if side == 1:
        return array
    count = array.shape[axis] // side
    kind = np.float32 if array.dtype.kind == "f" else np.int32
    before = (slice(None),) * axis
    total = array[(*before, slice(0, count * side, side))].astype(kind)
    for offset in range(1, side):
        total += array[(*before, slice(offset, count * side, side))]
    return total
