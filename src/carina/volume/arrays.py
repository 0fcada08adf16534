"""Arrays by what they hold: one name each for the whole package. Axes are ``(z, y, x)`` where nothing else is said."""

from __future__ import annotations

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
