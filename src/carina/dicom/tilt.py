"""A slice moved within its own plane: how a tilted gantry's shear is undone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carina.volume.values import SCALE_BOTTOM_HU


def place_slice(hu: npt.NDArray[np.int16], out: npt.NDArray[np.int16], rows_down: float, columns_right: float) -> None:
    """Put a slice's first pixel at a fractional place of a larger slice, linearly interpolated, air around it.

    Args:
        hu: the slice, ``(rows, columns)``, HU.
        out: the slice to fill, at least as large as the moved slice, HU.
        rows_down: row in ``out`` of the slice's first row, 0 or more.
        columns_right: column in ``out`` of the slice's first column, 0 or more.
    """
    down, right = int(rows_down), int(columns_right)
    moved = _shift(hu.astype(np.float32), rows_down - down, axis=0)
    moved = _shift(moved, columns_right - right, axis=1)
    rows = min(moved.shape[0], out.shape[0] - down)
    columns = min(moved.shape[1], out.shape[1] - right)
    out[...] = SCALE_BOTTOM_HU
    out[down : down + rows, right : right + columns] = np.rint(moved[:rows, :columns])


def _shift(values: npt.NDArray[np.float32], fraction: float, axis: int) -> npt.NDArray[np.float32]:
    """Move values by a part of a pixel towards higher indices; the axis grows by one, air on both sides."""
    width = [(0, 0), (0, 0)]
    width[axis] = (1, 1)
    padded = np.pad(values, width, constant_values=SCALE_BOTTOM_HU)
    here = padded[1:] if axis == 0 else padded[:, 1:]
    before = padded[:-1] if axis == 0 else padded[:, :-1]
    moved: npt.NDArray[np.float32] = here + np.float32(fraction) * (before - here)
    return moved
