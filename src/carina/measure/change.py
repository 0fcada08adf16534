"""What changed between two scans of a patient: volumes and ratio, and which slices show the same height."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from carina.measure.chest import ENDS_IN_THE_MIDDLE, ENDS_INSIDE, TOUCHED_SHARE
from carina.measure.findings import RegionFindings
from carina.measure.thirds import THIRDS_NOT_TOLD
from carina.volume.planes import Sliced

FEET_TO_HEAD = (0.0, 0.0, 1.0)
"""LPS."""

OTHER_BREATH_PERCENT = 10.0
"""A change of the lungs' volume from which a sentence says that the breath differs: ratio and HU change with it."""


@dataclass(frozen=True, kw_only=True)
class ScanFindings:
    """Both lungs together as one scan showed them; ``on`` is None where the run has no date, ``network`` made it.

    ``is_cut`` says that the scan ends inside the lungs, so that volumes and ratio are of a part of them.
    """

    on: date | None
    lungs: RegionFindings
    network: str = ""
    is_cut: bool = False


def is_told_cut(warnings: Iterable[str]) -> bool:
    """Whether a run's warnings say that its scan ends inside the lungs."""
    return not {ENDS_INSIDE, ENDS_IN_THE_MIDDLE, THIRDS_NOT_TOLD}.isdisjoint(warnings)


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
        """Whether the lungs are so much larger or smaller that the ratio changes by that alone; both in view."""
        return abs(self.lung_percent) >= OTHER_BREATH_PERCENT and not self.is_cut

    @property
    def is_cut(self) -> bool:
        """Whether one of the scans ends inside the lungs: the other shows what this one lacks."""
        return self.earlier.is_cut or self.later.is_cut

    @property
    def is_other_network(self) -> bool:
        """Whether the lesions were marked by different networks, whose difference is in the change."""
        return self.earlier.network != self.later.network


@dataclass(frozen=True, kw_only=True)
class LungHeight:
    """Where the lungs begin and end along an array axis: the slices of ``base`` and ``apex``, either the greater.

    ``is_base_cut`` and ``is_apex_cut`` say that the scan ends there before the lungs do.
    """

    base: float
    apex: float
    slice_mm: float = 1.0
    is_base_cut: bool = False
    is_apex_cut: bool = False

    def index(self, share: float) -> int:
        """The slice at a share of the height: 0 at the base, 1 at the apex, beyond them outside of the lungs.

        It need not be in the scan: ``beyond_mm`` tells.
        """
        return math.floor(self._place(share) + 0.5)

    def beyond_mm(self, share: float, count: int) -> float:
        """How far a share of the height lies beyond a scan of ``count`` slices, in mm from its outermost; 0 in it.

        Positive where that is towards the head, and negative towards the feet.
        """
        index = self.index(share)
        outermost = min(max(index, 0), count - 1)
        if index == outermost:
            return 0.0
        return (self._place(share) - outermost) * self.slice_mm * (1 if self.apex >= self.base else -1)

    def _place(self, share: float) -> float:
        return self.base + share * (self.apex - self.base)

    def share(self, index: int) -> float:
        """The share of the height at which a slice lies; 0 where the lungs are in one slice alone."""
        return (index - self.base) / (self.apex - self.base) if self.apex != self.base else 0.0

    @property
    def mm(self) -> float:
        """From base to apex; negative where slices are counted from head to feet."""
        return (self.apex - self.base) * self.slice_mm


@dataclass(frozen=True, kw_only=True)
class MatchedHeights:
    """The heights of two scans as their slices are matched: at one share of both. ``shown`` is the end that both show.

    It is empty where they are matched by the whole height.
    """

    earlier: LungHeight
    later: LungHeight
    shown: str = ""


def matched_heights(earlier: LungHeight, later: LungHeight) -> MatchedHeights:
    """Two scans' heights, by which slices are matched.

    Where one scan ends before the lungs do, the heights in view are none of the lungs': both are then as long as the
    earlier one's, in mm from the end that both scans show.
    """
    is_base_cut = earlier.is_base_cut or later.is_base_cut
    if is_base_cut == (earlier.is_apex_cut or later.is_apex_cut):
        return MatchedHeights(earlier=earlier, later=later)
    slices = abs(earlier.mm) / later.slice_mm * (1 if later.mm > 0 else -1)
    if is_base_cut:
        return MatchedHeights(earlier=earlier, later=replace(later, base=later.apex - slices), shown="apex")
    return MatchedHeights(earlier=earlier, later=replace(later, apex=later.base + slices), shown="base")


def lung_height(lung: Sliced, axis: int) -> LungHeight | None:
    """Where the lungs begin and end along the array axis ``axis``; None where there are none.

    Two scans are matched by it, and not by their positions: a patient lies elsewhere on the table each time.
    """
    areas = np.array([np.count_nonzero(lung.plane(axis, index)) for index in range(lung.grid.shape[axis])])
    filled = np.flatnonzero(areas)
    if not filled.size:
        return None
    ends, outermost = (int(filled[0]), int(filled[-1])), areas[[0, -1]] > TOUCHED_SHARE * areas.max()
    feet, head = (1, 0) if float(np.dot(lung.grid.axes[axis], FEET_TO_HEAD)) < 0 else (0, 1)
    return LungHeight(
        base=ends[feet],
        apex=ends[head],
        slice_mm=lung.grid.spacing_mm[axis],
        is_base_cut=bool(outermost[feet]),
        is_apex_cut=bool(outermost[head]),
    )
