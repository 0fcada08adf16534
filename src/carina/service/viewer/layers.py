"""The CT and its masks as NIfTI for the volume viewer: a quarter of the resolution first, then all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.errors import BadConfig
from carina.service.viewer.opened import OpenedRun
from carina.volume.arrays import HU, Labels
from carina.volume.grid import Grid
from carina.volume.planes import Sliced
from carina.volume.volume import Volume
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


def coarse_steps(grid: Grid, block_mm: float = QUARTER_MM) -> tuple[int, int, int]:
    """How many voxels along ``(z, y, x)`` become one in the quarter, or where blocks have another size."""
    z, y, x = (
        min(MOST_STEPS, count, max(1, round(block_mm / step)))
        for step, count in zip(grid.spacing_mm, grid.shape, strict=True)
    )
    return z, y, x


def layer_of(opened: OpenedRun, size: str, name: str) -> Layer:
    """``ct``, or ``marks``: 0 nothing, 1 lung, 2 lesion, 3 lesion in the lung.

    Raises:
        BadConfig: ``viewer.layer``: there is no such size or layer in this run.
    """
    if size not in (QUARTER, WHOLE) or name not in ("ct", "marks"):
        raise BadConfig("viewer.layer", f"{size}/{name}: expected {QUARTER} or {WHOLE}, and ct or marks.")
    images = opened.images
    if name == "ct":
        return opened.once(
            f"{size} ct", lambda: _ct(images.volume) if size == QUARTER else _whole_ct(opened.run.volume)
        )
    masks = images.lung, images.lesion
    if masks == (None, None):
        raise BadConfig("viewer.layer", "marks: this run made no mask.")
    return opened.once(f"{size} marks", lambda: _marks(masks, images.volume.grid, size))


def _whole_ct(volume: Volume) -> Layer:
    return Layer(array=volume.hu, grid=volume.grid)


def _ct(volume: Sliced) -> Layer:
    return Layer(array=_means(volume, coarse_steps(volume.grid)), grid=quartered(volume.grid))


def _marks(masks: Sequence[Sliced | None], grid: Grid, size: str) -> Layer:
    """Both masks as one."""
    shown = quartered(grid) if size == QUARTER else grid
    steps = coarse_steps(grid) if size == QUARTER else (1, 1, 1)
    halves = (None if mask is None else _halves(mask, steps) for mask in masks)
    return Layer(array=marks_of(halves, shown.shape), grid=shown)


def marks_of(masks: Iterable[npt.NDArray[Any] | None], shape: tuple[int, int, int]) -> Labels:
    """Lung and lesion, each 0 and 1, as marks."""
    marks = np.zeros(shape, np.uint8)
    for number, mask in enumerate(masks):
        if mask is not None:
            marks |= mask.view(np.uint8) << np.uint8(number)
    return marks


def quartered(grid: Grid) -> Grid:
    """The grid of the quarter: blocks of voxels as one, what is left over at an axis's end is left out."""
    steps = coarse_steps(grid)
    x, y, z = (float(value) for value in grid.points_mm([(step - 1) / 2 for step in steps]))
    z_mm, y_mm, x_mm = (mm * step for mm, step in zip(grid.spacing_mm, steps, strict=True))
    planes, rows, columns = (count // step for count, step in zip(grid.shape, steps, strict=True))
    return replace(grid, shape=(planes, rows, columns), spacing_mm=(z_mm, y_mm, x_mm), origin_mm=(x, y, z))


def _means(volume: Sliced, steps: tuple[int, int, int]) -> HU:
    """The mean of each block."""
    size = np.float32(np.prod(steps))
    return np.stack([np.rint(_sums(slab, steps, np.int32) / size).astype(np.int16) for slab in _slabs(volume, steps)])


def _halves(mask: Sliced, steps: tuple[int, int, int]) -> Labels:
    """Whether at least half of each block is labelled, as 0 and 1."""
    size = int(np.prod(steps))
    halves = [2 * _sums(slab, steps, np.uint8) >= size for slab in _slabs(mask, steps)]
    return np.stack(halves).view(np.uint8)


def _slabs(sliced: Sliced, steps: tuple[int, int, int]) -> Iterator[list[npt.NDArray[Any]]]:
    """The planes that become one, as far as their blocks are whole."""
    planes, rows, columns = (count // step for count, step in zip(sliced.grid.shape, steps, strict=True))
    for first in range(0, planes * steps[0], steps[0]):
        slab = (sliced.plane(0, index) for index in range(first, first + steps[0]))
        yield [plane[: rows * steps[1], : columns * steps[2]] for plane in slab]


def _sums(
    slab: Sequence[npt.NDArray[Any]], steps: tuple[int, int, int], kind: type[np.integer[Any]]
) -> npt.NDArray[Any]:
    """The sum of each block of a slab, in integers that hold it."""
    sums = _added(slab, kind)
    sums = _added([sums[first :: steps[1]] for first in range(steps[1])], kind)
    return _added([sums[:, first :: steps[2]] for first in range(steps[2])], kind)


def _added(parts: Iterable[npt.NDArray[Any]], kind: type[np.integer[Any]]) -> npt.NDArray[Any]:
    first, *others = parts
    total: npt.NDArray[Any] = first.astype(kind)
    for part in others:
        total += part
    return total
