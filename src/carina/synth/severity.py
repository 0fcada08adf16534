"""Disease painted over a growing share of healthy lungs: how a network answers to severity, with everything else alike.

A field of smoothed noise says where a patient falls ill first; what lies above its quantile is ill. The same field for
every share makes one course of disease: what is ill at 30 % is ill at 50 % too. Arrays are ``(z, y, x)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from carina.volume.arrays import HU, Flags, Floats

PLACES_VOXELS = (4.0, 12.0, 12.0)
"""What the noise that chooses places is smoothed by."""

BORDER_VOXELS = (1.0, 2.0, 2.0)
"""What the border of painted disease is softened by."""

GRAIN_VOXELS = (0.5, 1.0, 1.0)
"""What the texture of painted disease is smoothed by."""


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What ill lung looks like: its mean, and the standard deviation of its texture."""

    hu: float
    texture_hu: float


FILLINGS = {
    "ground-glass": Filling(hu=-550.0, texture_hu=40.0),
    "consolidation": Filling(hu=20.0, texture_hu=20.0),
}


def course(shape: Sequence[int], rng: np.random.Generator) -> Floats:
    """A smooth random field; where it is high, disease begins."""
    field: Floats = ndimage.gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), PLACES_VOXELS)
    return field


def ill_part(lung: Flags, field: Floats, share: float) -> Flags:
    """Where ``field`` is highest in ``lung``: ``share`` (0 to 1) of its voxels.

    Raises:
        ValueError: the lung is empty, or the share lies outside 0 to 1.
    """
    if not 0 <= share <= 1 or not lung.any():
        raise ValueError(f"a share of 0 to 1 of a lung that is there can be ill, not {share} of {lung.sum()} voxels")
    ill: Flags = lung & (field > np.quantile(field[lung], 1 - share)) if share < 1 else lung.copy()
    return ill


def fill(hu: HU, ill: Flags, filling: Filling, rng: np.random.Generator) -> HU:
    """``hu`` with ``ill`` filled; borders are soft, and what is denser than the filling stays (vessels, walls)."""
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), GRAIN_VOXELS)
    grain *= filling.texture_hu / max(float(grain.std()), 1e-6)
    grain += filling.hu
    weight = ndimage.gaussian_filter(ill.astype(np.float32), BORDER_VOXELS)
    painted: HU = np.rint(hu + weight * np.maximum(grain - hu, 0)).astype(np.int16)
    return painted
