"""The axial slices worth showing in a report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carina.measure.findings import KeySlice
from carina.measure.lungs import Box
from carina.volume import Grid, Volume

KEY_SLICES = 6
"""How many slices a report shows at most."""

APART_SHARE = 0.08
"""Key slices lie at least this share of the lungs' height apart."""

Lung = npt.NDArray[np.uint8]
Lesion = npt.NDArray[np.bool_]


def key_slices(lung: Lung, lesion: Lesion, box: Box, grid: Grid, volume: Volume | None = None) -> tuple[KeySlice, ...]:
    """The slices with the most lesion, some way apart; without lesions, slices spread over the lungs.

    ``lung`` and ``lesion`` are ``(z, y, x)`` blocks of the index box ``box`` of ``grid``; the slices given back are
    whole, and ordered from head to feet.
    """
    areas = np.count_nonzero(lesion, axis=(1, 2))
    planes = np.flatnonzero(lung.any(axis=(1, 2)))
    if not planes.size:
        return ()
    chosen = _largest(areas, max(1, round(APART_SHARE * len(planes)))) if areas.any() else _spread(planes)
    towards_head = bool(grid.axes[0][2] >= 0)
    return tuple(
        _key_slice(index, (lung, lesion), box, (grid, volume)) for index in sorted(chosen, reverse=towards_head)
    )


def _largest(areas: npt.NDArray[np.intp], apart: int) -> list[int]:
    left = areas.copy()
    chosen: list[int] = []
    while len(chosen) < KEY_SLICES and left.any():
        index = int(left.argmax())
        chosen.append(index)
        left[max(0, index - apart) : index + apart + 1] = 0
    return chosen


def _spread(planes: npt.NDArray[np.intp]) -> list[int]:
    shares = (np.arange(KEY_SLICES) + 0.5) / KEY_SLICES
    return list({int(planes[int(share * len(planes))]) for share in shares})


def _key_slice(index: int, masks: tuple[Lung, Lesion], box: Box, where: tuple[Grid, Volume | None]) -> KeySlice:
    grid, volume = where
    lung, lesion = (np.zeros(grid.shape[1:], dtype=np.bool_) for _ in masks)
    lung[box[1:]] = masks[0][index] > 0
    lesion[box[1:]] = masks[1][index]
    at = box[0].start + index
    return KeySlice(
        index=at,
        spacing_mm=grid.spacing_mm[1:],
        lung=lung,
        lesion=lesion,
        hu=None if volume is None else volume.hu[at].copy(),
    )
