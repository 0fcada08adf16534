"""How deep a chest was breathed in, and its HU as if it had been breathed in deeply.

Lungs hold less air in quiet breathing, least at the back, where they bear their own weight: the lesion network, trained
on deep breaths, takes that for ground glass (research/LOG.md, 23 to 26). What a place holds of air can be told without
any network: of each band of depth, from the back to the front, the clearest lung. Where that holds less air than the
clearest lung of a deep breath, the air of every voxel there is raised by their ratio; tissue without air stays.

Where nearly all of a band is ill, little of its clearest lung is healthy. It shows by how uneven that is (`UNEVEN`):
there only the very clearest counts.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.infer.regions import regions_of
from carina.volume.arrays import Flags, Floats, bounding_box
from carina.volume.average import averaged
from carina.volume.grid import Grid
from carina.volume.resample import cropped, reorient, resample
from carina.volume.volume import Volume

NO_AIR_HU = 40.0
"""Tissue without air."""

BAND_COUNT = 6
"""Bands from back to front."""

AVERAGED_MM = 3.0
"""Voxels are averaged to this before the clearest are looked for: noise would be clear, too."""

SMOOTHING_MM = 1.5
"""Standard deviation of the smoothing after that."""

OPEN_AIR_HU = -950.0
"""What is clearer is a windpipe, a bowel or emphysema, which say nothing of breathing."""

LEAST_HEIGHT_MM = 100.0
"""With lungs seen over less, gravity and disease look alike: a slice has no other height with a healthy back."""

LEAST_VOXELS = 200
"""Bands with fewer voxels of lung take the factor of their neighbours."""

CLEAREST = (0.3, 1.0, 3.0, 10.0)
"""Percentiles of HU: the clearest of all, and three that show how even the clear lung is."""

UNEVEN = (1.11, 1.19)
"""The first percent holds so many times the air of the tenth: up to the first, the third percent is healthy lung; from
the second on, only the clearest of all is. Quiet breathing: 1.05 to 1.10; 90 % ill: 1.2 to 1.4."""

MOST_RAISED = 1.35
"""No air is raised by more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Breath:
    """By how much air is raised (1: not at all) at each row along y of ``grid``, back to front or front to back."""

    grid: Grid
    factors: npt.NDArray[np.float64]

    def deepen(self, hu: Floats, grid: Grid) -> None:
        """Raise the air of ``hu`` on ``grid`` (axes ``(z, y, x)`` as those of this breath's grid), in place."""
        rows = np.zeros((grid.shape[1], 3))
        rows[:, 1] = np.arange(grid.shape[1])
        places = self.grid.indices(grid.points_mm(rows))[:, 1]
        more = np.interp(places, np.arange(len(self.factors)), self.factors) - 1
        if not more.any():
            return
        for part, row in zip(hu, np.broadcast_to(more, hu.shape[:2]), strict=True):
            part -= np.maximum(np.float32(NO_AIR_HU) - part, 0) * row[:, None].astype(np.float32)


def breath_of(volume: Volume, orientation: str, clear_hu: float) -> Breath | None:
    """By how much the air of ``volume`` is to be raised, so that its clearest lung lies at ``clear_hu`` at each depth.

    None where no lungs are seen, or too little of them (`LEAST_HEIGHT_MM`), or where they are clear already.
    """
    regions = regions_of(volume, orientation)
    if regions.air is None or regions.coarse is None:
        return None
    means, grid = averaged(*reorient(volume.hu, volume.grid, orientation), (AVERAGED_MM, AVERAGED_MM, AVERAGED_MM))
    lungs: Flags = resample(regions.air.astype(np.uint8), regions.coarse, grid, 0) > 0
    box = bounding_box(lungs)
    if box is None:
        return None
    z = box[0]
    if (z.stop - z.start) * grid.spacing_mm[0] < LEAST_HEIGHT_MM:
        return None
    inside = ndimage.binary_erosion(lungs[box], border_value=1)
    smooth = ndimage.gaussian_filter(means[box], [SMOOTHING_MM / side for side in grid.spacing_mm])
    inside &= smooth > OPEN_AIR_HU
    factors = _factors(smooth, inside, clear_hu)
    if factors is None or not (factors > 1).any():
        return None
    return Breath(grid=cropped(grid, box), factors=factors)


def _factors(hu: Floats, lung: Flags, clear_hu: float) -> npt.NDArray[np.float64] | None:
    """The factor of each row along y."""
    edges = np.linspace(0, hu.shape[1], BAND_COUNT + 1).astype(int)
    middles, found = [], []
    for start, stop in itertools.pairwise(edges):
        clear = hu[:, start:stop][lung[:, start:stop]]
        if len(clear) >= LEAST_VOXELS:
            middles.append((start + stop - 1) / 2)
            found.append(_factor(clear, clear_hu))
    if not found:
        return None
    return np.interp(np.arange(hu.shape[1]), middles, found)


def _factor(hu: Floats, clear_hu: float) -> float:
    """How many times the air of one band's clear lung that of ``clear_hu`` is, from 1 to `MOST_RAISED`."""
    best, first, third, tenth = NO_AIR_HU - np.percentile(hu, CLEAREST)
    even, uneven = UNEVEN
    doubt = float(np.clip((first / tenth - even) / (uneven - even), 0, 1))
    clear = doubt * best + (1 - doubt) * third
    return float(np.clip((NO_AIR_HU - clear_hu) / clear, 1, MOST_RAISED))
