"""Disease drawn on large voxels as it would look if it had been painted at full resolution and averaged to them.

A scan's own tissue was averaged to large voxels. What is drawn on them by itself is sharper than anything real, and
ends where a mask of whole voxels ends, so that a thin shell of air, or of too little of it, stays between it and the
wall. A network learns either in place of disease. Arrays are ``(z, y, x)`` in RAS order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from carina.volume.arrays import Flags, Floats

BLURRED_VOXELS = (0.5, 0.9)
"""What is drawn is smoothed by so many voxels: averaged and sampled between voxels is about as soft as 0.5."""

SOME_LUNG_SHARE, WHOLE_LUNG_SHARE = 0.02, 0.98
"""Shares of a voxel that count as none of it and as all of it."""

HOLDS_AIR_HU = -500.0
"""Lung below this has air, and tells how lung beside it would look without the wall."""
AROUND_VOXELS = 1.5
"""How far around a voxel of the wall lung is looked for."""

MOST_WALL_HU = 60.0
"""A voxel of the wall is not denser than this after the lung in it was, unless it had been before."""

Draw = Callable[[Floats, Flags], tuple[Floats, Flags]]
"""Draws into HU, in the lungs given; returns the new HU and a mask."""


def paint_averaged(hu: Floats, share: Floats, draw: Draw, rng: np.random.Generator) -> tuple[Floats, Flags]:
    """``hu`` with what ``draw`` adds to its lungs, and the mask that ``draw`` returns, inside the lungs.

    ``share`` is how much of each voxel is lung, 0 to 1. ``draw`` sees voxels of the wall as if they were lung alone;
    what it adds is smoothed inside the lungs, and a voxel takes of it what its share of lung is.
    """
    lung = share > SOME_LUNG_SHARE
    wall = lung & (share < WHOLE_LUNG_SHARE)
    deep = np.where(wall, _without_wall(hu, share), hu)
    drawn, mask = draw(deep, lung)
    width = float(rng.uniform(*BLURRED_VOXELS))
    near = np.maximum(ndimage.gaussian_filter(lung.astype(np.float32), width), 1e-3)
    added = ndimage.gaussian_filter(np.where(lung, drawn - deep, 0).astype(np.float32), width) / near
    painted = np.where(lung, hu + np.where(wall, share, 1) * added, hu)
    capped = np.where(wall, np.minimum(painted, np.maximum(hu, MOST_WALL_HU)), painted)
    return capped.astype(np.float32), mask & (share >= 0.5)


def _without_wall(hu: Floats, share: Floats) -> Floats:
    """``hu`` as low as that of the aerated lung around each voxel, where there is any."""
    aerated = ((share >= WHOLE_LUNG_SHARE) & (hu < HOLDS_AIR_HU)).astype(np.float32)
    weight = ndimage.gaussian_filter(aerated, AROUND_VOXELS)
    around = ndimage.gaussian_filter(aerated * hu, AROUND_VOXELS) / np.maximum(weight, 1e-3)
    return np.where(weight > 1e-3, np.minimum(hu, around), hu)
