"""Synthetic scans that are no chest CT, in which a lung network still finds something to call lung.

A head on a foam rest, an abdomen with gas, an abdomen with stool, and a quality phantom with foam inserts: made of
ellipsoids with the HU of what they stand for, blurred and noisy. Arrays are ``(z, y, x)``; axes are those of a patient
on the back, head up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume import Grid, Volume
from carina.volume.arrays import Flags

SCAN_SHAPE = (70, 300, 300)
SCAN_SPACING_MM = (3.0, 0.8, 0.8)
SCAN_NOISE_HU = 15.0
BLUR_VOXELS = (0.3, 0.7, 0.7)

AIR, FAT, WATER, ORGAN, BRAIN, SKULL = -1000, -100, 0, 40, 35, 900
HEADREST, INSERT, STOOL = -960, -700, -350

Voxels = npt.NDArray[np.float32]


class NotChest(StrEnum):
    """What is scanned."""

    HEAD = "head"
    GAS = "abdomen with gas"
    STOOL = "abdomen with stool"
    INSERTS = "phantom with foam inserts"


def not_a_chest(kind: NotChest, *, seed: int = 1) -> Volume:
    """A scan of 210 mm that shows no lungs, in HU, int16; noise and texture follow from ``seed`` alone."""
    rng = np.random.default_rng(seed)
    hu = np.full(SCAN_SHAPE, AIR, dtype=np.float32)
    _PAINTERS[kind](hu, rng)
    blurred = ndimage.gaussian_filter(hu, BLUR_VOXELS) + rng.normal(0, SCAN_NOISE_HU, SCAN_SHAPE).astype(np.float32)
    grid = Grid(shape=SCAN_SHAPE, spacing_mm=SCAN_SPACING_MM, origin_mm=(-120.0, -120.0, -105.0))
    return Volume(hu=np.clip(np.rint(blurred), -1024, 3071).astype(np.int16), grid=grid, uid=file_stem(kind))


def file_stem(kind: NotChest) -> str:
    """A name for files: the kind without spaces."""
    return kind.value.replace(" ", "-")


def _ellipsoid(centre: Sequence[float], radii: Sequence[float]) -> Flags:
    """The voxels within half axes ``radii`` of ``centre``, both ``(z, y, x)`` in voxels."""
    lines = np.ogrid[tuple(slice(0, size) for size in SCAN_SHAPE)]
    terms = (((line - c) / r) ** 2 for line, c, r in zip(lines, centre, radii, strict=True))
    inside: Flags = sum(terms, start=np.zeros(1)) <= 1
    return inside


def _head(hu: Voxels, _: np.random.Generator) -> None:
    """Skull, brain and air-filled sinuses, between the cushions of a headrest."""
    hu[:, 215:265, 60:240] = HEADREST
    hu[:, 100:240, 40:62] = HEADREST
    hu[:, 100:240, 238:260] = HEADREST
    for radii, value in (((36, 115, 92), ORGAN), ((35, 108, 85), SKULL), ((34, 101, 79), BRAIN)):
        hu[_ellipsoid((35, 150, 150), radii)] = value
    sinuses = (((15, 80, 128), (9, 20, 14)), ((15, 80, 172), (9, 20, 14)), ((13, 90, 150), (11, 24, 7)))
    cells = (((17, 170, 88), (6, 14, 10)), ((17, 170, 212), (6, 14, 10)), ((5, 170, 150), (20, 12, 10)))
    for centre, radii in (*sinuses, *cells):
        hu[_ellipsoid(centre, radii)] = AIR


def _belly(hu: Voxels) -> None:
    hu[_ellipsoid((35, 150, 150), (200, 100, 140))] = FAT
    hu[_ellipsoid((35, 150, 150), (200, 85, 125))] = ORGAN


def _gas(hu: Voxels, _: np.random.Generator) -> None:
    """A bubble in the stomach and a string of bowel loops."""
    _belly(hu)
    hu[_ellipsoid((35, 120, 110), (22, 30, 38))] = AIR
    for loop in range(6):
        hu[_ellipsoid((10 * loop + 5, 100 + 10 * loop, 180 + 5 * loop), (6, 14, 14))] = AIR


def _stool(hu: Voxels, rng: np.random.Generator) -> None:
    """A colon full of gas and stool, mixed in clumps of some millimetres."""
    _belly(hu)
    inside = _ellipsoid((35, 150, 150), (28, 50, 70))
    clumps = ndimage.gaussian_filter(rng.normal(0, 1, SCAN_SHAPE), (1, 2, 2))
    hu[inside] = STOOL + 250 * (clumps / clumps.std())[inside]


def _inserts(hu: Voxels, _: np.random.Generator) -> None:
    """A cylinder of water with two ellipsoids of foam that has the mean HU of lung, and none of its vessels."""
    hu[_ellipsoid((35, 150, 150), (200, 115, 92))] = WATER
    for x in (110, 190):
        hu[_ellipsoid((35, 150, x), (60, 60, 25))] = INSERT


_PAINTERS: dict[NotChest, Callable[[Voxels, np.random.Generator], None]] = {
    NotChest.HEAD: _head,
    NotChest.GAS: _gas,
    NotChest.STOOL: _stool,
    NotChest.INSERTS: _inserts,
}
