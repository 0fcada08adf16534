"""The tracheobronchial tree: the lumen that is connected with the trachea, grown until it would leak into the lung.

The procedure, on the voxels of the CT, of the box around the lungs and what lies above it:

1. trachea: round air near the middle, in the upper half of the box, outside the lungs;
2. core: the air below a threshold that is connected with it, at rising thresholds, until it leaks (Mori et al., IEEE
   TMI 2000: a bronchus adds little, the lung adds all at once);
3. twigs: from the threshold at which the core would leak, steps of 4 mm at a time; a step that is as small as a
   bronchus is kept, one that spreads is not, and the others go on.

Arrays are ``(z, y, x)`` in RAS order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume.arrays import Box, Flags, marked_box
from carina.volume.grid import Triple
from carina.volume.resample import cropped, reorient
from carina.volume.volume import Mask, Volume

AIRWAY_MAX_ML = 90.0
"""Trachea and bronchi of an adult hold less than this; more means that the growing leaked into lung."""

AIRWAY_MIN_ML = 4.0
"""What holds less is no tree: a bubble, or the oesophagus."""

ABOVE_LUNGS_MM = 60.0
"""The trachea above the lungs, up to the larynx."""

THRESHOLDS_HU = (-960, -940, -920, -900, -880, -860, -830, -800, -760, -700)
TWIG_THRESHOLDS = 4
TWIG_STEP_MM = 4.0
TWIG_MM3 = (4.0, 100.0)
"""What one step may add at one place: more than a voxel of noise, less than a leak."""

TWIG_STEPS = 10
TRACHEA_MM2 = (80.0, 700.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Core:
    """The largest lumen that did not leak, and the place in ``THRESHOLDS_HU`` of the threshold that gave it."""

    flags: Flags
    ml: float
    level: int


def airway_tree(volume: Volume, lung: Mask) -> Mask | None:
    """Trachea and bronchi of a chest, on the part of the CT's grid (in RAS order) around them and the lungs.

    None where no trachea is seen: a scan of a part of the lungs, a single slice, no lungs.
    """
    lungs, grid = reorient(lung.labels, volume.grid, "RAS")
    if not lungs.any():
        return None
    box = chest_box(lungs > 0, grid.spacing_mm)
    hu = reorient(volume.hu, volume.grid, "RAS")[0][box].astype(np.float32)
    spacing = grid.spacing_mm
    smooth = ndimage.gaussian_filter(hu, (0.5 / spacing[0] if spacing[0] < 1.5 else 0, *_blur(spacing)))
    air = smooth < -400
    seeds = trachea_seeds(air & (lungs[box] == 0), spacing)
    core = grow_core(smooth, air, seeds, spacing)
    if core.ml < AIRWAY_MIN_ML:
        return None
    labels, _ = ndimage.label(_with_twigs(smooth, core, spacing), np.ones((3, 3, 3)))
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    tree = (labels == largest).astype(np.uint8)
    return Mask(labels=tree, grid=cropped(grid, box), names={1: "airways"}, uid=volume.uid)


def chest_box(lungs: Flags, spacing_mm: Triple) -> Box:
    """The box of the lungs (not empty, RAS order), with what lies above it up to the larynx."""
    z, y, x = marked_box(lungs)
    top = min(lungs.shape[0], z.stop + round(ABOVE_LUNGS_MM / spacing_mm[0]))
    return slice(z.start, top), y, x


def grow_core(
    smooth: npt.NDArray[np.float32], air: Flags, seeds: list[tuple[int, int, int]], spacing_mm: Triple
) -> Core:
    """At each threshold the air connected with the trachea; the largest that did not leak."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    best = Core(flags=np.zeros(air.shape, dtype=bool), ml=0.0, level=0)
    if not seeds:
        return best
    for level, threshold in enumerate(THRESHOLDS_HU):
        labels, _ = ndimage.label((smooth < threshold) & air)
        sizes_ml = np.bincount(labels.ravel()) * voxel_ml
        kept = {int(i) for i in labels[tuple(np.array(seeds).T)] if i and sizes_ml[i] <= AIRWAY_MAX_ML}
        ml = float(sum(sizes_ml[i] for i in kept))
        if best.ml > 15 and ml > 2.0 * best.ml:
            break
        if ml > best.ml:
            best = Core(flags=np.isin(labels, list(kept)), ml=ml, level=level)
    return best


def trachea_seeds(air: Flags, spacing_mm: Triple) -> list[tuple[int, int, int]]:
    """Voxels of the trachea: in the upper half, centres of round air of 80 to 700 mm2 within 25 mm of the middle."""
    area_mm2 = spacing_mm[1] * spacing_mm[2]
    low, high = TRACHEA_MM2
    seeds = []
    for z in range(air.shape[0] - 1, air.shape[0] // 2, -1):
        for (y, x), voxels in _round_regions(air[z]):
            near = abs(x - air.shape[2] / 2) * spacing_mm[2] < 25
            if near and low <= voxels * area_mm2 <= high:
                seeds.append((z, y, x))
    return seeds


def _round_regions(plane: Flags) -> Iterator[tuple[tuple[int, int], int]]:
    """The centres of the round regions of a plane, and how many voxels each has."""
    labels, _ = ndimage.label(plane)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[box] == index
        sides = region.shape
        y, x = (side.start + count // 2 for side, count in zip(box, sides, strict=True))
        if max(sides) <= 2.2 * min(sides) and region.mean() > 0.5 and labels[y, x] == index:
            yield (y, x), int(np.count_nonzero(region))


def _blur(spacing_mm: Triple) -> list[float]:
    return [max(0.6, 0.6 / step) for step in spacing_mm[1:]]


def _with_twigs(smooth: npt.NDArray[np.float32], core: Core, spacing_mm: Triple) -> Flags:
    tree = core.flags.copy()
    least, most = (mm3 / float(np.prod(spacing_mm)) for mm3 in TWIG_MM3)
    voxels = max(2, round(TWIG_STEP_MM / spacing_mm[1]))
    for threshold in THRESHOLDS_HU[core.level : core.level + TWIG_THRESHOLDS]:
        open_to = (smooth < threshold) | tree
        for _ in range(TWIG_STEPS):
            labels, _ = ndimage.label(
                ndimage.binary_dilation(tree, iterations=voxels, mask=open_to) & ~tree, np.ones((3, 3, 3))
            )
            sizes = np.bincount(labels.ravel())
            good = (sizes >= least) & (sizes <= most)
            good[0] = False
            if not good.any():
                break
            tree |= good[labels]
    return tree
