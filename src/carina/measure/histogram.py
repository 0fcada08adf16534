"""How HU are spread over the lungs and over their lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carina.measure.joined import same_grid
from carina.volume import Mask, Volume

LOWEST_HU, HIGHEST_HU = -1024, 200
"""What is shown: from air to soft tissue. What lies beyond counts in the first and in the last bin."""

BIN_HU = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class HuHistogram:
    """Volumes in ml by bin of ``BIN_HU``; ``lesion_ml`` is a part of ``lung_ml``.

    ``edges_hu`` are the bins' borders, one more than there are bins; the percentiles are over all voxels of the lungs.
    """

    edges_hu: npt.NDArray[np.float64]
    lung_ml: npt.NDArray[np.float64]
    lesion_ml: npt.NDArray[np.float64]
    median_hu: float
    tenth_hu: float
    ninetieth_hu: float


def hu_histogram(volume: Volume, lung: Mask, lesion: Mask | None = None) -> HuHistogram | None:
    """The histogram of the lungs; None where there is none.

    Raises:
        ModelFailed: ``measure.grids``, a mask lies on another grid.
    """
    same_grid("CT", volume.grid, "lung mask", lung.grid)
    inside = lung.labels > 0
    values = volume.hu[inside]
    if not values.size:
        return None
    edges = np.arange(LOWEST_HU, HIGHEST_HU + BIN_HU, BIN_HU, dtype=np.float64)
    marked = values[:0]
    if lesion is not None:
        same_grid("CT", volume.grid, "lesion mask", lesion.grid)
        marked = volume.hu[inside & (lesion.labels > 0)]
    lung_ml, lesion_ml = (
        np.histogram(np.clip(part, edges[0], edges[-1]), edges)[0] * volume.grid.voxel_ml for part in (values, marked)
    )
    tenth, median, ninetieth = (float(value) for value in np.percentile(values, [10, 50, 90]))
    return HuHistogram(
        edges_hu=edges,
        lung_ml=lung_ml,
        lesion_ml=lesion_ml,
        median_hu=median,
        tenth_hu=tenth,
        ninetieth_hu=ninetieth,
    )
