"""A body whose every half differs from the other, stored in the ways that scanners and files store it."""

from __future__ import annotations

import numpy as np

from carina.volume import Grid, Mask, Volume

STANDARD = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
STORED = {
    "standard": STANDARD,
    "head first in the array": ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    "rows and columns backwards": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0)),
    "sagittal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "rows from left to right": ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}
"""Axes of the array (z, y, x) in LPS."""


LUNGS_MM = (
    ((-110.0, -10.0), (-70.0, 50.0), (-40.0, 55.0)),
    ((20.0, 90.0), (-50.0, 30.0), (-55.0, 40.0)),
)
"""The right and the left lung as boxes ``(x, y, z)``, LPS: no mirror image of the two looks like them."""

LESION_MM = ((-100.0, -60.0), (-60.0, -20.0), (10.0, 50.0))
"""The lesion, in the right lung, in front and above."""

SIZE_MM = (240.0, 160.0, 120.0)
"""The whole body ``(x, y, z)``, about the origin."""

Box = tuple[tuple[float, float], ...]


def body(axes: tuple[tuple[float, float, float], ...] = STANDARD) -> tuple[Volume, Mask, Mask]:
    """Tissue, two lungs of air and a lesion on voxels of 2 x 4 x 5 mm ``(x, y, z)``, stored along ``axes``."""
    size_mm = np.abs(np.array(axes) @ np.array(SIZE_MM))
    spacing = np.abs(np.array(axes) @ np.array([2.0, 4.0, 5.0]))
    shape = tuple(int(v) for v in np.round(size_mm / spacing))
    first = -(np.array(axes).T @ (np.array(spacing) * (np.array(shape) - 1) / 2))
    grid = Grid(shape=shape, spacing_mm=tuple(spacing), origin_mm=tuple(first), axes=axes)  # type: ignore[arg-type]
    lung = np.any([in_box(grid, box) for box in LUNGS_MM], axis=0)
    lesion = in_box(grid, LESION_MM)
    hu = np.where(lung, -850, 40).astype(np.int16)
    masks = [
        Mask(labels=flags.astype(np.uint8), grid=grid, names={1: name}, uid="1.2.3")
        for flags, name in ((lung, "lungs"), (lesion, "lesion"))
    ]
    return Volume(hu=hu, grid=grid, uid="1.2.3"), masks[0], masks[1]


def in_box(grid: Grid, box: Box) -> np.ndarray:
    """Which voxels lie in a box given in mm."""
    points = grid.points_mm(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1))
    sides = [(points[..., k] > low) & (points[..., k] < high) for k, (low, high) in enumerate(box)]
    return np.asarray(np.all(sides, axis=0))
