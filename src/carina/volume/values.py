"""What stored values become on their way into a volume or a mask, and what was seen of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.volume.arrays import HU, Labels
from carina.volume.header import VolumeHeader, bad

SCALE_BOTTOM_HU = -1024
SCALE_TOP_HU = 32767

MOST_HU = 70000
"""No value lies above, or below its negative: metal reaches 30000, padding -32768."""

SAMPLED = 64
"""Every so many values are looked at before they are clipped."""

FEW_LABELS = 8
"""So many labels are looked for one by one, which takes less time than counting all."""


class HuValues:
    """Stored values as Hounsfield units."""

    def __init__(self, path: Path, header: VolumeHeader) -> None:
        """Refuse what can't be HU.

        Raises:
            BadSeries: ``file.no-hu``, values of 8 bits.
        """
        if header.voxels.dtype.itemsize == 1:
            raise bad(path, "no-hu", "8-bit values can't be HU; give the CT itself, not a mask or picture.")
        self._path = path
        self._low, self._high = np.inf, -np.inf
        self._missing = 0
        self.sample: list[npt.NDArray[Any]] = []

    def taken(self, values: npt.NDArray[Any]) -> HU:
        """Values rounded and clipped to -1024 .. 32767; NaN is padding."""
        if values.dtype.kind == "f":
            values = np.rint(values)
            is_missing = np.isnan(values)
            if is_missing.any():
                self._missing += int(np.count_nonzero(is_missing))
                values[is_missing] = SCALE_BOTTOM_HU
        low, high = float(values.min()), float(values.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        self.sample.append(values.reshape(-1)[::SAMPLED].astype(np.float64))
        if values.dtype == np.int16 and low >= SCALE_BOTTOM_HU:
            return values
        with np.errstate(over="ignore"):  # what is infinite is refused at the end
            return values.clip(SCALE_BOTTOM_HU, SCALE_TOP_HU).astype(np.int16, copy=False)

    def warnings(self) -> tuple[str, ...]:
        """A sentence on NaN.

        Raises:
            BadSeries: ``file.no-hu``, values are infinite or too large for HU.
        """
        if self._low < -MOST_HU or self._high > MOST_HU:
            seen = f"values run from {self._low:g} to {self._high:g}"
            words = f"{seen}; a chest CT in HU reaches from -1000 to some thousand; convert it again."
            raise bad(self._path, "no-hu", words)
        words = f"{self._path.name}: {self._missing} voxels are NaN (no number) and taken for padding, "
        return (f"{words}{SCALE_BOTTOM_HU} HU.",) if self._missing else ()


class LabelValues:
    """Stored values as labels, and which of them occur."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_found = np.zeros(256, np.bool_)

    def taken(self, values: npt.NDArray[Any]) -> Labels:
        """Values that are labels as they are.

        Raises:
            BadSeries: ``file.no-labels``, values are no whole numbers from 0 to 255.
        """
        with np.errstate(invalid="ignore"):
            found: Labels = values.astype(np.uint8, copy=False)
        if found is not values and not np.array_equal(found, values):
            raise bad(self._path, "no-labels", "values are no whole numbers from 0 to 255, so no labels.")
        self._look(found)
        return found

    def names(self, known: Mapping[int, str]) -> dict[int, str]:
        """A word for each label that occurs: as it is known, else ``label N``."""
        return {**{int(label): f"label {label}" for label in np.flatnonzero(self._is_found) if label}, **known}

    def _look(self, found: Labels) -> None:
        largest = int(found.max(initial=0))
        self._is_found[largest] = True
        open_ones = np.flatnonzero(~self._is_found[1:largest]) + 1
        if len(open_ones) > FEW_LABELS:
            np.logical_or(self._is_found, np.bincount(found, minlength=256), out=self._is_found)
        else:
            self._is_found[open_ones] = [bool((found == label).any()) for label in open_ones]
