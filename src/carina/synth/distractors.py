"""What is neither lesion nor lung but looks like it: nodules, fluid, dependent density, clothes; motion, kernel, noise.

Arrays are ``(z, y, x)`` float32 HU in RAS order (``y`` grows towards anterior); every draw comes from the generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.synth.lesions import SOLID_HU
from carina.volume.arrays import Flags, Floats

_CROSS = ndimage.generate_binary_structure(2, 1)[None]

BORROWED_HU = (-700.0, -500.0)
"""`borrowed` takes nothing of what is below, everything of what is above."""

NOISE_HU = 25.0
"""The mean of the noise's standard deviation; thin slices of a sharp kernel reach 80 HU (research log, 14)."""

PLAIN_BLOOD_HU = 30.0
"""Blood without contrast medium, about."""

VESSEL_HU = -500.0
"""Above: vessels and tissue, at least half of the voxel; below: lung."""


@dataclass(frozen=True, kw_only=True)
class LookAlikes:
    """How often each look-alike is drawn (0 to 1), and up to how many nodules."""

    breath: float
    dependent: float
    nodules: float
    most_nodules: int
    effusion: float


FOR_CLASSIFIERS = LookAlikes(breath=0.6, dependent=0.5, nodules=0.5, most_nodules=7, effusion=0.15)
"""What a classifier is shown, and is measured on."""


def look_alikes(
    hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator, often: LookAlikes
) -> tuple[Floats, Flags]:
    """Some of the look-alikes, each as often as ``often`` says; returns HU and the mask of pleural fluid."""
    fluid = np.zeros(hu.shape, dtype=np.bool_)
    if rng.random() < often.breath:
        hu = breath(hu, lung, rng)
    if rng.random() < often.dependent:
        hu = dependent(hu, lung, spacing_mm, rng)
    if rng.random() < often.nodules:
        hu = nodules(hu, lung, spacing_mm, rng, count=int(rng.integers(1, often.most_nodules + 1)))
    if rng.random() < often.effusion:
        hu, fluid = effusion(hu, lung, spacing_mm, rng)
    return hu, fluid


def nodules(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator, *, count: int) -> Floats:
    """Sharp round solid nodules of 2 to 7 mm radius."""
    out = hu.copy()
    points = np.argwhere(lung)
    for _ in range(count if len(points) else 0):
        centre = points[rng.integers(len(points))]
        radius = float(rng.uniform(2, 7))
        reach = [int(radius / s) + 3 for s in spacing_mm]
        box = tuple(slice(max(0, c - r), c + r + 1) for c, r in zip(centre, reach, strict=True))
        local = [c - b.start for c, b in zip(centre, box, strict=True)]
        radii = [radius * float(rng.uniform(0.85, 1.15)) for _ in range(3)]
        depth = fields.ellipsoid(out[box].shape, spacing_mm, local, radii, 0.0)
        weight = fields.sigmoid(depth * 4.0) * lung[box]
        out[box] += weight * np.maximum(rng.uniform(-20, 80) - out[box], 0)
    return out


def effusion(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[Floats, Flags]:
    """Fluid with a level, along the back of the lungs. Returns HU and the mask of the fluid, which is not lung."""
    rows = np.flatnonzero(lung.any(axis=(0, 2)))
    if not len(rows):
        return hu, np.zeros(hu.shape, dtype=bool)
    level = rows[0] + rng.uniform(4, 28) / spacing_mm[1]
    slope = rng.uniform(-0.04, 0.04)
    y = np.arange(hu.shape[1], dtype=np.float32)[None, :, None]
    x = np.arange(hu.shape[2], dtype=np.float32)[None, None, :]
    weight = fields.sigmoid((level + slope * (x - hu.shape[2] / 2) - y) * spacing_mm[1] / 0.8) * lung
    fluid = rng.uniform(0, 30) + rng.uniform(5, 20) * fields.noise(hu.shape, spacing_mm, 1.0, rng)
    return hu + weight * (fluid - hu), weight > 0.5


def dependent(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """A faint band of denser lung along the back: gravity, not disease."""
    rows = np.flatnonzero(lung.any(axis=(0, 2)))
    if not len(rows):
        return hu
    y = (np.arange(hu.shape[1], dtype=np.float32)[None, :, None] - rows[0]) * spacing_mm[1]
    fraction = rng.uniform(0.03, 0.14) * np.exp(-np.maximum(y, 0) / rng.uniform(8, 25))
    denser: Floats = (hu + lung * fraction * np.maximum(SOLID_HU - hu, 0)).astype(np.float32)
    return denser


def breath(hu: Floats, lung: Flags, rng: np.random.Generator) -> Floats:
    """Less or more air in the whole lung: -8 % to 12 % of the air displaced."""
    changed: Floats = np.maximum(hu + lung * rng.uniform(-0.08, 0.12) * np.maximum(SOLID_HU - hu, 0), -1024)
    return changed.astype(np.float32)


def contrast(hu: Floats, rng: np.random.Generator) -> Floats:
    """Vessels and heart with less or more contrast medium: what lies above 30 HU there times 0.2 to 2."""
    changed: Floats = np.where(hu > PLAIN_BLOOD_HU, PLAIN_BLOOD_HU + rng.uniform(0.2, 2.0) * (hu - PLAIN_BLOOD_HU), hu)
    return changed.astype(np.float32)


def vessels(hu: Floats, rng: np.random.Generator) -> Floats:
    """Vessels, and every border of tissue with lung, a pixel thicker or thinner at most; lung itself stays as it is."""
    part = float(rng.uniform(0.2, 1.0))
    if rng.random() < 0.5:
        thicker = ndimage.maximum_filter(np.where(hu > VESSEL_HU, hu, np.float32(-1024)), footprint=_CROSS)
        changed = np.asarray(hu + part * np.maximum(thicker - hu, 0))
    else:
        changed = np.where(hu > VESSEL_HU, hu + part * (ndimage.minimum_filter(hu, footprint=_CROSS) - hu), hu)
    return np.asarray(changed, dtype=np.float32)


def borrowed(hu: Floats, lung: Flags, other: Floats, inside: Flags) -> Floats:
    """Vessels of another chest, ``other``, beside those of this one, where both have lung: a chest that nobody has.

    ``inside`` are the lungs of the other chest, of which the outermost voxels are not taken: they show its outline.
    """
    deep = ndimage.binary_erosion(inside, _CROSS, iterations=3)
    deep &= ndimage.minimum_filter(inside, (3, 1, 1))
    dense = np.clip((other - BORROWED_HU[0]) / (BORROWED_HU[1] - BORROWED_HU[0]), 0, 1)
    taken: Floats = np.where(lung & deep, hu + dense * np.maximum(other - hu, 0), hu).astype(np.float32)
    return taken


def clothes(hu: Floats, around: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """Cloth and folds in the air around the body, up to about -700 HU: to a network, what a lung beside an arm is."""
    bulk = np.maximum(fields.noise(hu.shape, spacing_mm, rng.uniform(8, 30), rng) + rng.uniform(-1.0, 0.5), 0)
    fold = np.exp(-((fields.noise(hu.shape, spacing_mm, rng.uniform(5, 15), rng) / rng.uniform(0.05, 0.2)) ** 2))
    dressed: Floats = (hu + around * (rng.uniform(20, 150) * bulk + rng.uniform(0, 250) * fold)).astype(np.float32)
    return dressed


def motion(hu: Floats, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """Breathing or the heart's beat during the scan: the mean of the image and itself moved by 1 to 4 mm."""
    shift = (0.0, *(rng.uniform(-4, 4) / s for s in spacing_mm[1:]))
    part = rng.uniform(0.2, 0.5)
    moved: Floats = ((1 - part) * hu + part * ndimage.shift(hu, shift, order=1, mode="nearest")).astype(np.float32)
    return moved


def kernel_and_noise(hu: Floats, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """A softer or sharper reconstruction kernel, and noise: of up to 75 HU in most of those that get any."""
    out = hu
    if rng.random() < 0.4:
        soft = ndimage.gaussian_filter(hu, (0, *(rng.uniform(0.5, 1.0),) * 2))
        out = soft if rng.random() < 0.5 else hu + rng.uniform(0.3, 0.9) * (hu - soft)
    if rng.random() < 0.5:
        out = out + rng.exponential(NOISE_HU) * fields.noise(hu.shape, spacing_mm, rng.uniform(0.8, 1.6), rng)
    return np.asarray(out, dtype=np.float32)
