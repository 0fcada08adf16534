"""Pneumonias that are not COVID-19, drawn into real lungs: what a classifier must not call by that name.

Four looks, as textbooks tell them apart (Franquet, J Thorac Imaging 2018; 33: 282): a lobe or a part of one filled up
to its fissure, air in its bronchi, nearly always on one side; bronchopneumonia, patches and nodules around bronchi;
tree in bud, clusters of nodules of 2 to 4 mm on short branches (Rossi and others, RadioGraphics 2005; 25: 789); and
cavities, with walls of 4 to 15 mm and often a fluid level, one large one as of an abscess or several smaller ones
(Parkar and Kandiah, J Belg Soc Radiol 2016; 100: 100).

What is smaller than a voxel fills its share of it, so that the same draw can be looked at finely and taught coarsely.
Arrays are ``(z, y, x)`` in RAS order; patients lie on their back, so fluid collects at low ``y``. Every draw comes from
the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.synth.lesions import LABEL_FROM, SOLID_HU, Spacing, log_uniform, to_the_wall
from carina.volume.arrays import Flags, Floats

CAVITY_HU = -980.0

LOBE_SHARES = (0.06, 0.45)
"""The part of one lung that a lobar pneumonia fills."""
BRONCHI = 0.75
"""The share of lobar pneumonias with air left in bronchi."""

BUD_RADII_MM = (1.0, 2.0)
LOBULE_RADII_MM = (2.5, 6.0)
PATCH_RADII_MM = (14.0, 45.0)
"""Nodules of tree in bud and of bronchopneumonia, and the patches that they lie in."""

WALLS_MM = (4.0, 15.0)
ABSCESS_RADII_MM = (18.0, 38.0)
CAVITY_RADII_MM = (8.0, 18.0)
FLUID_LEVEL = 0.5
"""The share of cavities with fluid."""


class Pneumonia(StrEnum):
    """What a pneumonia looks like."""

    LOBAR = "lobar"
    BRONCHIAL = "bronchial"
    TREE_IN_BUD = "tree-in-bud"
    CAVITIES = "cavities"


def draw_pneumonia(
    hu: Floats, lung: Flags, spacing_mm: Spacing, rng: np.random.Generator, kind: Pneumonia | None = None
) -> tuple[Floats, Flags]:
    """Draw one pneumonia into ``hu`` (float32 ``(z, y, x)``), inside ``lung``; None draws the kinds evenly.

    Returns the new HU and what it takes of the lung. Nothing happens without lung.
    """
    if not lung.any():
        return hu, np.zeros(lung.shape, dtype=np.bool_)
    chosen = kind or list(Pneumonia)[int(rng.integers(len(Pneumonia)))]
    weight, filling = _DRAWN[chosen](to_the_wall(hu, lung, spacing_mm), spacing_mm, rng)
    grain = rng.uniform(4, 20) * fields.noise(hu.shape, spacing_mm, 1.0, rng)
    drawn = hu + weight * np.where(filling < 0, filling - hu, np.maximum(filling - hu, 0)) + weight * grain
    return np.asarray(drawn, dtype=np.float32), (weight > LABEL_FROM) & lung


def _lobar(lung: Flags, spacing_mm: Spacing, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """A part of one lung beyond a plane, homogeneous and sharp at the plane, its edge elsewhere ragged at times."""
    side = _one_lung(lung, rng)
    z, y, x = (np.arange(n, dtype=np.float32) * s for n, s in zip(lung.shape, spacing_mm, strict=True))
    tilt = rng.normal(0, 1, 3) * (1.0, 0.8, 0.3)
    place = tilt[0] * z[:, None, None] + tilt[1] * y[:, None] + tilt[2] * x
    place = place / float(np.linalg.norm(tilt)) + 1.5 * fields.noise(lung.shape, spacing_mm, 25.0, rng)
    share = log_uniform(LOBE_SHARES, rng)
    depth = place - float(np.quantile(place[side], 1 - share))
    if rng.random() < 0.5:  # a segment: bounded on the other side too, by lung that is still open
        ragged = rng.uniform(3, 9) * fields.noise(lung.shape, spacing_mm, 12.0, rng)
        depth = np.minimum(depth, float(np.quantile(depth[side], 1 - share / 2)) - depth + ragged)
    weight = fields.sigmoid(np.asarray(depth * 2.2 / rng.uniform(0.3, 1.2), np.float32)) * side
    weight *= float(rng.uniform(0.85, 1.0))
    inside = np.argwhere(weight > LABEL_FROM)
    if rng.random() < BRONCHI and len(inside):
        root, *tips = inside[rng.integers(0, len(inside), int(rng.integers(4, 9)))].astype(float)
        air = fields.tree(lung.shape, spacing_mm, root, np.array(tips), float(rng.uniform(1.2, 2.6)))
        weight = np.where(air, 0.1, 1.0) * weight
    return np.asarray(weight, dtype=np.float32), _soft(lung.shape, rng)


def _bronchial(lung: Flags, spacing_mm: Spacing, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Lobules of 5 to 12 mm around bronchi, running together here and there, with some glass between them."""
    where = _one_lung(lung, rng) if rng.random() < 0.5 else lung
    patches = _patches(where, spacing_mm, rng, count=int(rng.integers(2, 7)))
    lobules = _nodules(where, spacing_mm, rng, patches, log_uniform(LOBULE_RADII_MM, rng), per_ml=rng.uniform(0.1, 0.6))
    together = fields.sigmoid(4 * (fields.noise(lung.shape, spacing_mm, 8.0, rng) - rng.uniform(0.6, 1.6)))
    weight = np.maximum(lobules, patches * np.maximum(together * rng.uniform(0.5, 1.0), rng.uniform(0.0, 0.12)))
    return np.asarray(weight, dtype=np.float32), _soft(lung.shape, rng)


def _tree_in_bud(lung: Flags, spacing_mm: Spacing, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Clusters of small sharp nodules on short branches; the lung between them stays as it is."""
    where = _one_lung(lung, rng) if rng.random() < 0.4 else lung
    patches = _patches(where, spacing_mm, rng, count=int(rng.integers(2, 9)))
    buds = _nodules(where, spacing_mm, rng, patches, log_uniform(BUD_RADII_MM, rng), per_ml=rng.uniform(2.0, 7.0))
    return np.minimum(buds * np.float32(rng.uniform(0.7, 1.0)), 1), _soft(lung.shape, rng)


def _cavities(lung: Flags, spacing_mm: Spacing, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """One abscess or several cavities: a wall of tissue around air, fluid with a level in half of them."""
    is_abscess = rng.random() < 0.5
    places = np.argwhere(_one_lung(lung, rng) if is_abscess else lung)
    weight, filling = np.zeros(lung.shape, np.float32), _soft(lung.shape, rng)
    for _ in range(1 if is_abscess else int(rng.integers(2, 7))):
        centre = places[rng.integers(len(places))].astype(float)
        radius = log_uniform(ABSCESS_RADII_MM if is_abscess else CAVITY_RADII_MM, rng)
        radii = [radius * float(rng.uniform(0.8, 1.25)) for _ in range(3)]
        depth = fields.ellipsoid(lung.shape, spacing_mm, centre, radii, float(rng.uniform(0, np.pi)))
        depth += radius * rng.uniform(0.03, 0.12) * fields.noise(lung.shape, spacing_mm, max(radius / 2, 3.0), rng)
        around = rng.uniform(2, 12) * np.maximum(fields.noise(lung.shape, spacing_mm, 10.0, rng), 0)
        shell = np.maximum(fields.sigmoid(depth * 2.2), 0.5 * fields.sigmoid(np.asarray(depth + around, np.float32)))
        hole = fields.sigmoid((depth - min(log_uniform(WALLS_MM, rng), 0.7 * radius)) * 2.2)
        if rng.random() < FLUID_LEVEL:
            rows = (np.arange(lung.shape[1], dtype=np.float32) - centre[1]) * spacing_mm[1]
            level = radius * rng.uniform(-0.6, 0.5)
            hole = hole * fields.sigmoid(np.asarray((rows - level) * 3, np.float32))[None, :, None]
        weight = np.maximum(weight, shell * lung)
        filling = np.where(hole > 0.5, CAVITY_HU, filling)
    return np.asarray(weight, dtype=np.float32), np.asarray(filling, dtype=np.float32)


def _one_lung(lung: Flags, rng: np.random.Generator) -> Flags:
    """The left or the right half of ``lung``; the other where one half is empty."""
    columns = np.flatnonzero(lung.any(axis=(0, 1)))
    side = np.zeros(lung.shape, dtype=np.bool_)
    middle = (columns[0] + columns[-1] + 1) // 2
    side[..., :middle] = True
    chosen = lung & (side if rng.random() < 0.5 else ~side)
    return chosen if chosen.any() else lung


def _patches(lung: Flags, spacing_mm: Spacing, rng: np.random.Generator, *, count: int) -> Floats:
    """Round soft places in the lung, 0 to 1, in which nodules lie."""
    points = np.argwhere(lung)
    inside = np.zeros(lung.shape, np.float32)
    for centre in points[rng.integers(0, len(points), count)].astype(float):
        radius = log_uniform(PATCH_RADII_MM, rng)
        radii = [radius * float(rng.uniform(0.7, 1.4)) for _ in range(3)]
        depth = fields.ellipsoid(lung.shape, spacing_mm, centre, radii, float(rng.uniform(0, np.pi)))
        inside = np.maximum(inside, fields.sigmoid(np.asarray(depth / 3, np.float32)))
    return np.asarray(inside * lung, dtype=np.float32)


def _nodules(
    lung: Flags, spacing_mm: Spacing, rng: np.random.Generator, patches: Floats, radius_mm: float, *, per_ml: float
) -> Floats:
    """How much of each voxel nodules of one size fill, 0 to 1: four of five in clusters, as buds on a branch."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    stems = np.argwhere(rng.random(lung.shape) < patches * min(per_ml * voxel_ml / 5, 1.0))
    if not len(stems):
        stems = np.argwhere(lung)[:1]
    spread = rng.normal(0, 1, (len(stems), 5, 3)) * (2.5 * radius_mm) / np.array(spacing_mm)
    spread[:, 0] = 0
    buds = np.rint(stems[:, None] + spread).astype(int).reshape(-1, 3)
    buds = buds[((buds >= 0) & (buds < lung.shape)).all(axis=1)]
    held = np.zeros(lung.shape, np.float32)
    np.add.at(held, tuple(buds.T), np.float32(4.19e-3 * radius_mm**3 / voxel_ml))
    sigma = [0.62 * radius_mm / step for step in spacing_mm]  # a bell as high as 1.1 where voxels are fine
    filled: Floats = np.clip(ndimage.gaussian_filter(held, sigma), 0, 1) * lung
    return filled


def _soft(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """The HU of soaked tissue, everywhere the same."""
    return np.full(shape, rng.uniform(max(SOLID_HU - 30, 1), SOLID_HU + 30), np.float32)


_DRAWN: Mapping[Pneumonia, Callable[[Flags, Spacing, np.random.Generator], tuple[Floats, Floats]]] = {
    Pneumonia.LOBAR: _lobar,
    Pneumonia.BRONCHIAL: _bronchial,
    Pneumonia.TREE_IN_BUD: _tree_in_bud,
    Pneumonia.CAVITIES: _cavities,
}
