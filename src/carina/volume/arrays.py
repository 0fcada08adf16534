"""Arrays by what they hold: one name each for the whole package. Axes are ``(z, y, x)`` where nothing else is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
"""Yes or no for each place."""
Labels = npt.NDArray[np.uint8]
"""A label's number for each place; 0 is none."""
Marks = Flags | Labels
"""What is marked: true, or any label above 0."""
HU = npt.NDArray[np.int16]
"""Hounsfield units as they are stored."""
Floats = npt.NDArray[np.float32]
"""Numbers in single precision: HU while they are worked on, scores, pictures."""
Doubles = npt.NDArray[np.float64]
"""Numbers in double precision: places, figures."""

Box = tuple[slice, slice, slice]
"""A part of an array, ``(z, y, x)``."""


def bounding_box(marks: Marks, margin: int = 0) -> Box | None:
    """The smallest box that holds every marked voxel, and ``margin`` voxels around it; None where nothing is marked."""
    planes = np.asarray(marks.any(axis=(1, 2)))
    if not planes.any():
        return None
    depth = _filled(planes)
    plane = np.asarray(marks[depth].any(axis=0))
    box = (depth, _filled(np.asarray(plane.any(axis=1))), _filled(np.asarray(plane.any(axis=0))))
    return grown_box(box, margin, marks.shape) if margin else box


def marked_box(marks: Marks, margin: int = 0) -> Box:
    """The same of an array in which something must be marked.

    Raises:
        ValueError: nothing is.
    """
    box = bounding_box(marks, margin)
    if box is None:
        raise ValueError(f"an array of shape {marks.shape} has no box of what is marked: nothing is")
    return box


def grown_box(box: Sequence[slice], voxels: int | Sequence[int], shape: Sequence[int]) -> Box:
    """A box with so many ``voxels`` more on either side, one number or ``(z, y, x)``, inside an array of ``shape``."""
    margins = [voxels] * 3 if isinstance(voxels, int) else voxels
    z, y, x = (
        slice(max(0, part.start - margin), min(part.stop + margin, size))
        for part, margin, size in zip(box, margins, shape, strict=True)
    )
    return z, y, x


def _filled(line: Flags) -> slice:
    first, last = np.flatnonzero(line)[[0, -1]]
    return slice(int(first), int(last) + 1)
