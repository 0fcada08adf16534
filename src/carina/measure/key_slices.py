"""Which axial slices are worth a look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from carina.measure.findings import KeySlice
from carina.volume import Mask, ScalarMap, Volume

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.int64] | npt.NDArray[np.float64]


def choose_slices(volume: Volume | None, lung: Mask, lesion: Mask | None, count: int = 6) -> tuple[KeySlice, ...]:
    """At most ``count`` slices, from the head downwards.

    With lesions: those with the largest lesion area, kept apart from each other so that they spread over the lungs,
    and no slice without a lesion. Without: slices spread evenly over the lungs, or over the whole volume where there
    is no lung. ``hu`` is None without a ``volume``.
    """
    by_lung = _areas(lung)
    by_lesion = _areas(lesion) if lesion is not None else np.zeros_like(by_lung)
    places = np.flatnonzero(by_lung + by_lesion)
    if not places.size:
        places = np.arange(len(by_lung))
    chosen = _largest_apart(by_lesion, _gap(places, count), count) or _evenly(places, count)
    return tuple(_key_slice(k, volume, lung, lesion) for k in _from_the_head(chosen, lung))


def choose_salient(volume: Volume, lung: Mask, saliency: ScalarMap, count: int = 3) -> tuple[KeySlice, ...]:
    """At most ``count`` slices with the largest changes in the lungs, up or down, apart from each other.

    From the head downwards; where nothing changes, slices spread evenly over the lungs.
    """
    places = np.flatnonzero(_areas(lung))
    if not places.size:
        places = np.arange(len(lung.labels))
    changes = np.zeros(len(lung.labels))
    for k in places:
        changes[k] = np.abs(saliency.values[k][lung.labels[k] > 0]).sum(dtype=np.float64)
    gap = _gap(places, count)
    chosen = _largest_apart(changes, gap, count)
    for place in _evenly(places, count):
        if len(chosen) < count and all(abs(place - other) >= gap for other in chosen):
            chosen.append(place)
    return tuple(
        replace(_key_slice(k, volume, lung, None), saliency=saliency.values[k].copy())
        for k in _from_the_head(chosen, lung)
    )


def _from_the_head(slices: list[int], lung: Mask) -> list[int]:
    return sorted(slices, reverse=bool(lung.grid.axes[0][2] >= 0))


def _gap(places: npt.NDArray[np.intp], count: int) -> int:
    """How far apart ``count`` slices are kept: half of their even distance over ``places``."""
    return max(1, (int(places[-1]) - int(places[0])) // (2 * count))


def _areas(mask: Mask) -> Counts:
    return np.array([np.count_nonzero(plane) for plane in mask.labels], dtype=np.int64)


def _largest_apart(areas: Weights, gap: int, count: int) -> list[int]:
    chosen: list[int] = []
    for k in np.argsort(-areas, kind="stable"):
        if len(chosen) == count or not areas[k]:
            break
        if all(abs(int(k) - other) >= gap for other in chosen):
            chosen.append(int(k))
    return chosen


def _evenly(places: npt.NDArray[np.intp], count: int) -> list[int]:
    """The middles of ``count`` equal parts."""
    picked = (np.arange(count) + 0.5) / count * len(places)
    return sorted({int(places[int(k)]) for k in picked})


def _key_slice(k: int, volume: Volume | None, lung: Mask, lesion: Mask | None) -> KeySlice:
    inside = lung.labels[k] > 0
    return KeySlice(
        index=k,
        spacing_mm=lung.grid.spacing_mm[1:],
        lung=inside,
        lesion=lesion.labels[k] > 0 if lesion is not None else np.zeros_like(inside),
        hu=volume.hu[k].copy() if volume is not None else None,
    )
