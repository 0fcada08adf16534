"""Voxels that a click means: what is enclosed in a slice, and what is like a voxel around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from carina.corrections.voxel_runs import runs_of_flags
from carina.errors import BadConfig
from carina.volume.arrays import Doubles, Flags
from carina.volume.volume import Volume

Seed = tuple[int, int, int]
"""The voxel that was clicked, ``(z, y, x)``."""


def enclosed(marks: Flags, at: Seed, normal: int) -> list[int]:
    """Runs of what is not marked around a voxel, within its slice across axis ``normal``, up to the marks.

    Raises:
        BadConfig: ``corrections.open``, the voxel is marked, or the marks do not go all the way round it.
    """
    plane = np.take(marks, at[normal], axis=normal)
    row, column = (step for axis, step in enumerate(at) if axis != normal)
    if plane[row, column]:
        raise BadConfig("corrections.open", "the crosshair is on a mark: put it into the hole that is to be filled.")
    areas, _ = ndimage.label(~plane)
    hole = areas == areas[row, column]
    if hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any():
        raise BadConfig(
            "corrections.open",
            "the marks in this slice do not go all the way round the crosshair: close the line first.",
        )
    found = np.zeros(marks.shape, np.bool_)
    index: list[slice | int] = [slice(None)] * 3
    index[normal] = at[normal]
    found[tuple(index)] = hole
    return runs_of_flags(found)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How far a region grows from a voxel: HU up or down from its own, and mm."""

    tolerance_hu: float
    reach_mm: float


def alike(volume: Volume, at: Seed, how: Growth, within: Flags | None = None) -> list[int]:
    """Runs of the voxels around one that are like it: connected (by faces), within the tolerance, reach and mask.

    ``within`` counts only where the voxel itself lies in it.
    """
    steps = [int(how.reach_mm / spacing) for spacing in volume.grid.spacing_mm]
    box = tuple(
        slice(max(place - step, 0), min(place + step + 1, count))
        for place, step, count in zip(at, steps, volume.grid.shape, strict=True)
    )
    middle = tuple(place - part.start for place, part in zip(at, box, strict=True))
    hu = volume.hu[box].astype(np.int32)
    like = np.abs(hu - int(volume.hu[at])) <= how.tolerance_hu
    like &= _near(hu.shape, middle, volume.grid.spacing_mm) <= how.reach_mm
    if within is not None and within[at]:
        like &= within[box]
    areas, _ = ndimage.label(like)
    found = np.zeros(volume.grid.shape, np.bool_)
    found[box] = areas == areas[middle]
    return runs_of_flags(found)


def _near(shape: tuple[int, ...], middle: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Doubles:
    """The distance of each voxel from one, in mm."""
    z, y, x = (
        (np.arange(count) - place) * spacing for count, place, spacing in zip(shape, middle, spacing_mm, strict=True)
    )
    away: Doubles = np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
    return away
