"""What 3D shows of the lungs alone: airways as a body, what is in the lungs as HU, and the marks, on one fine grid.

The quarter is too coarse for a bronchus and all of a CT too much to turn: here blocks of about 1.4 mm of the box around
the lungs and the trachea above them, in RAS order. Made when they are asked for, once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import BadConfig
from carina.measure.airways import airway_tree, chest_box
from carina.service.viewer.layers import Layer, coarse_steps, marks_of
from carina.service.viewer.opened import OpenedRun, WholeImages
from carina.volume.arrays import Box
from carina.volume.grid import Grid
from carina.volume.resample import cropped, reorient
from carina.volume.volume import Mask

SOLID = "solid"
SOLID_MM = 1.4

AIRWAY_FULL = 200
"""The value of a voxel that lies in the airways as a whole; their surface is about half of it."""

RIM_MM = 2.5
"""This close to the chest wall a voxel is partly wall: left out unless a lesion is marked there."""

AROUND_LUNGS_HU = -1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Near:
    """The box around lungs and trachea in a CT that is seen in RAS order, its grid, and how many voxels are one."""

    box: Box
    grid: Grid
    steps: tuple[int, int, int]

    @property
    def shown(self) -> Grid:
        """The grid of the blocks."""
        x, y, z = (float(value) for value in self.grid.points_mm([(step - 1) / 2 for step in self.steps]))
        z_mm, y_mm, x_mm = (mm * step for mm, step in zip(self.grid.spacing_mm, self.steps, strict=True))
        planes, rows, columns = (count // step for count, step in zip(self.grid.shape, self.steps, strict=True))
        shape, spacing = (planes, rows, columns), (z_mm, y_mm, x_mm)
        return replace(self.grid, shape=shape, spacing_mm=spacing, origin_mm=(x, y, z))

    def means(self, array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The mean of each block of an array on ``grid``."""
        (a, b, c), (planes, rows, columns) = self.steps, self.shown.shape
        whole = array[: planes * a, : rows * b, : columns * c].reshape(planes, a, rows, b, columns, c)
        means: npt.NDArray[np.float32] = whole.mean(axis=(1, 3, 5), dtype=np.float32)
        return means

    def taken(self, array: npt.NDArray[Any], grid: Grid) -> npt.NDArray[np.float32]:
        """The means of an array on the grid of the CT."""
        return self.means(reorient(array, grid, "RAS")[0][self.box])


def solid_layer(opened: OpenedRun, name: str) -> Layer:
    """``airways``, ``lungs`` (HU in the lungs, air around them) or ``marks``, on one grid.

    Raises:
        BadConfig: ``viewer.layer``: there is no such layer, no lungs are marked, or no airways are found.
    """
    made = {"airways": _airways, "lungs": _lungs, "marks": _solid_marks}
    if name not in made:
        raise BadConfig("viewer.layer", f"{SOLID}/{name}: expected {', '.join(made)}.")
    lung = opened.images.lung
    if lung is None or not any(lung.plane(0, z).any() for z in range(lung.grid.shape[0])):
        raise BadConfig("viewer.layer", f"{name}: this run marked no lungs.")
    layer = opened.once(f"{SOLID} {name}", lambda: made[name](opened.whole))
    if layer is None:
        raise BadConfig("viewer.layer", "airways: no trachea is found in this scan.")
    return layer


def _near(images: WholeImages) -> tuple[Near, Mask]:
    lung = images.lung
    assert lung is not None, "asked for before"
    lungs, grid = reorient(lung.labels, images.volume.grid, "RAS")
    box = chest_box(lungs > 0, grid.spacing_mm)
    near = cropped(grid, box)
    return Near(box=box, grid=near, steps=coarse_steps(near, SOLID_MM)), lung


def _airways(images: WholeImages) -> Layer | None:
    near, lung = _near(images)
    tree = airway_tree(images.volume, lung)
    if tree is None:
        return None
    walled = ndimage.binary_dilation(tree.labels, ndimage.generate_binary_structure(3, 1))
    body = ndimage.gaussian_filter(near.means(walled), 0.6)
    return Layer(array=np.rint(AIRWAY_FULL * body).astype(np.uint8), grid=near.shown)


def _lungs(images: WholeImages) -> Layer:
    near, lung = _near(images)
    grid = images.volume.grid
    flags = near.taken(lung.labels > 0, grid) >= 0.5
    kept = ndimage.distance_transform_edt(np.pad(flags, 1), sampling=near.shown.spacing_mm)[1:-1, 1:-1, 1:-1] > RIM_MM
    if images.lesion is not None:
        kept |= near.taken(images.lesion.labels > 0, grid) >= 0.5
    hu = np.rint(near.taken(images.volume.hu, grid)).astype(np.int16)
    return Layer(array=np.where(kept, hu, np.int16(AROUND_LUNGS_HU)), grid=near.shown)


def _solid_marks(images: WholeImages) -> Layer:
    near, lung = _near(images)
    masks = [None if one is None else near.taken(one.labels > 0, lung.grid) >= 0.5 for one in (lung, images.lesion)]
    return Layer(array=marks_of(masks, near.shown.shape), grid=near.shown)
