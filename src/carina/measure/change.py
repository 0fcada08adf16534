"""What changed between two scans of a patient: volumes and ratio, and which slices show the same height."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from carina.measure.findings import RegionFindings
from carina.volume.planes import Sliced

FEET_TO_HEAD = (0.0, 0.0, 1.0)
"""LPS."""

OTHER_BREATH_PERCENT = 10.0
"""A change of the lungs' volume from which a sentence says that the breath differs: ratio and HU change with it."""


@dataclass(frozen=True, kw_only=True)
class ScanFindings:
    """Both lungs together as one scan showed them; ``on`` is None where the run has no date, ``network`` made it."""

    on: date | None
    lungs: RegionFindings
    network: str = ""


@dataclass(frozen=True, kw_only=True)
class LesionChange:
    """From an earlier scan to a later one. Volumes in ml, ratio in percent of the lungs' volume."""

    earlier: ScanFindings
    later: ScanFindings

    @property
    def days(self) -> int | None:
        """Days between the scans; None where a date is missing."""
        if self.earlier.on is None or self.later.on is None:
            return None
        return (self.later.on - self.earlier.on).days

    @property
    def lesion_ml(self) -> float:
        """By how much the volume of lesions grew."""
        return self.later.lungs.lesion_ml - self.earlier.lungs.lesion_ml

    @property
    def lung_percent(self) -> float:
        """By how much the lungs' volume grew, in percent of the earlier; 0 where there was none."""
        before = self.earlier.lungs.lung_ml
        return 100 * (self.later.lungs.lung_ml - before) / before if before else 0.0

    @property
    def is_other_breath(self) -> bool:
        """Whether the lungs are so much larger or smaller that the ratio changes by that alone."""
        return abs(self.lung_percent) >= OTHER_BREATH_PERCENT

    @property
    def is_other_network(self) -> bool:
        """Whether the lesions were marked by different networks, whose difference is in the change."""
        return self.earlier.network != self.later.network


@dataclass(frozen=True, kw_only=True)
class LungHeight:
    """Where the lungs begin and end along an array axis: the slices of ``base`` and ``apex``, either the greater."""

    base: int
    apex: int

    def index(self, share: float) -> int:
        """The slice at a share of the height: 0 at the base, 1 at the apex, beyond them outside of the lungs."""
        return round(self.base + share * (self.apex - self.base))

    def share(self, index: int) -> float:
        """The share of the height at which a slice lies; 0 where the lungs are in one slice alone."""
        return (index - self.base) / (self.apex - self.base) if self.apex != self.base else 0.0


def lung_height(lung: Sliced, axis: int) -> LungHeight | None:
    """Where the lungs begin and end along the array axis ``axis``; None where there are none.

    Two scans are matched by it, and not by their positions: a patient lies elsewhere on the table each time.
    """
    filled = np.flatnonzero([lung.plane(axis, index).any() for index in range(lung.grid.shape[axis])])
    if not filled.size:
        return None
    first, last = int(filled[0]), int(filled[-1])
    if float(np.dot(lung.grid.axes[axis], FEET_TO_HEAD)) < 0:
        first, last = last, first
    return LungHeight(base=first, apex=last)
