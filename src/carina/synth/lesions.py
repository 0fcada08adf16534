"""Synthetic COVID-19 lesions in real lungs, and look-alikes that are not labelled.

One physical model for all of them: a fraction ``f`` of a voxel's air is displaced by tissue, so
``hu' = hu + f * (TISSUE_HU - hu)``. Vessels, being tissue already, stay visible through ground glass (``f`` of 0.15 to
0.6) and vanish in consolidation (``f`` near 1); noise shrinks with the air that is left. After NormNet (Yao and others,
IEEE TMI 2021), with borders, textures and places widened.

Ground glass begins faint: outlined areas have a median of about -650 HU, a quarter of them lies below -750 (single
slices outlined by radiologists), beside lung of -850 HU; its density wanders within one outline, and bronchograms are
seen in about a third of consolidations.

Arrays are ``(z, y, x)`` in RAS order; every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.volume.arrays import Flags, Floats

SOLID_HU = 40.0
LABEL_FROM = 0.35
"""A voxel counts as lesion where the lesion's weight (0 outside, 1 inside its soft border) is above this."""

WALL_MM = 1.6
"""How far beyond the lung's mask voxels are filled that are part air."""
HIGHER_THAN_WIDE = 1.5
"""Voxels that are higher than wide by more than this have no wall above and below."""
PART_AIR_HU = -150.0
"""Below this a voxel beside the lung is part air; fat of the chest wall is denser."""

Spacing = Sequence[float]


class Kind(StrEnum):
    """What a lesion looks like."""

    GROUND_GLASS = "ground-glass"
    CONSOLIDATION = "consolidation"
    RETICULATION = "reticulation"
    CRAZY_PAVING = "crazy-paving"
    MIXED = "mixed"


class Size(StrEnum):
    """How large a lesion is: ``small`` below 1 ml, ``medium`` to 10 ml, ``large`` above."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


RADII_MM = (5.0, 42.0)
"""Mean half axes of lesions, drawn evenly in their logarithm."""
SMALL_RADII_MM = (3.0, 10.0)
"""The same where only small and medium lesions are wanted: about 0.1 to 4 ml."""

LIMITS_ML = {Size.SMALL: (0.1, 1.0), Size.MEDIUM: (1.0, 10.0), Size.LARGE: (10.0, 200.0)}
"""The volumes of each class."""

GLASS_FRACTIONS = (0.1, 0.6)
"""The air that ground glass displaces, drawn evenly in its logarithm, so that faint disease is as common as bright."""
SOLID_FRACTIONS = (0.75, 1.0)
"""The air that consolidation displaces."""
BRONCHOGRAMS = 0.4
"""The share of consolidations with air left in their bronchi."""

_WEIGHTS = {
    Kind.GROUND_GLASS: 0.35,
    Kind.CONSOLIDATION: 0.25,
    Kind.RETICULATION: 0.14,
    Kind.CRAZY_PAVING: 0.11,
    Kind.MIXED: 0.15,
}


@dataclass(frozen=True, kw_only=True)
class DrawnLesion:
    """One drawn lesion: its place in voxels ``(z, y, x)``, half axes in mm, and what fills it."""

    kind: Kind
    centre: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    angle: float
    border_mm: float
    fraction: float
    texture: float
    texture_mm: float
    ragged: float


def draw_lesions(
    lung: Flags,
    spacing_mm: Spacing,
    rng: np.random.Generator,
    *,
    count: int,
    kind: Kind | None = None,
    radii_mm: tuple[float, float] = RADII_MM,
) -> list[DrawnLesion]:
    """Draw ``count`` lesions inside ``lung`` (bool ``(z, y, x)``), more often near the pleura and behind.

    ``kind`` None draws kinds by their usual share. Empty where there is no lung.
    """
    if not lung.any():
        return []
    depth = fields.depth_in(lung, spacing_mm)
    points = np.argwhere(lung)
    points = points[rng.integers(0, len(points), min(len(points), 4000))]
    behind = (points[:, 1] - points[:, 1].min()) / max(float(np.ptp(points[:, 1])), 1.0)
    chance = np.exp(-depth[tuple(points.T)] / 12.0) + 0.15
    chance = chance * (1.3 - behind)
    chosen = points[rng.choice(len(points), count, p=chance / chance.sum())]
    return [_draw(tuple(float(v) for v in point), kind or _kind(rng), radii_mm, rng) for point in chosen]


def _kind(rng: np.random.Generator) -> Kind:
    return list(_WEIGHTS)[int(rng.choice(len(_WEIGHTS), p=list(_WEIGHTS.values())))]


def _draw(
    centre: tuple[float, ...], kind: Kind, radii_mm: tuple[float, float], rng: np.random.Generator
) -> DrawnLesion:
    size = log_uniform(radii_mm, rng)
    z, u, v = (float(size * rng.uniform(0.6, 1.5)) for _ in range(3))
    solid = kind is Kind.CONSOLIDATION
    return DrawnLesion(
        kind=kind,
        centre=(centre[0], centre[1], centre[2]),
        radii_mm=(z, u, v),
        angle=float(rng.uniform(0, np.pi)),
        border_mm=log_uniform((0.3, 2.0) if solid else (0.5, 5.0), rng),
        fraction=draw_fraction(rng, solid=solid),
        texture=float(rng.uniform(0.0, 0.1) if solid else rng.uniform(0.05, 0.6)),
        texture_mm=log_uniform((1.5, 15.0), rng),
        ragged=float(rng.uniform(0.1, 0.7)),
    )


def without_air(drawn: Sequence[DrawnLesion], share: float, rng: np.random.Generator) -> list[DrawnLesion]:
    """The same lesions, of whose consolidations a ``share`` holds no air, as dense as vessels and walls."""
    airless = [share > 0 and one.kind is Kind.CONSOLIDATION and rng.random() < share for one in drawn]
    return [replace(one, fraction=1.0) if is_airless else one for one, is_airless in zip(drawn, airless, strict=True)]


def draw_fraction(rng: np.random.Generator, *, solid: bool, glass: tuple[float, float] = GLASS_FRACTIONS) -> float:
    """The air that a lesion displaces, 0 to 1; ``glass`` are the ends for what is not ``solid``."""
    return float(rng.uniform(*SOLID_FRACTIONS)) if solid else log_uniform(glass, rng)


def log_uniform(ends: tuple[float, float], rng: np.random.Generator) -> float:
    """A number between ``ends`` (above 0), drawn evenly in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(ends))))


def paste(
    hu: Floats, lung: Flags, spacing_mm: Spacing, lesions: Sequence[DrawnLesion], rng: np.random.Generator
) -> tuple[Floats, Flags]:
    """Put ``lesions`` into ``hu`` (float32 ``(z, y, x)``), inside ``lung`` and up to the tissue around it.

    Returns the new HU and the mask of all lesions, which stays inside ``lung``.
    """
    out, mask = hu.copy(), np.zeros(hu.shape, dtype=bool)
    for lesion in lesions:
        reach = 1.6 * max(lesion.radii_mm) + 2 * lesion.border_mm
        low = [max(0, int(c - reach / s)) for c, s in zip(lesion.centre, spacing_mm, strict=True)]
        high = [min(n, int(c + reach / s) + 2) for n, c, s in zip(hu.shape, lesion.centre, spacing_mm, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        centre = [c - a for c, a in zip(lesion.centre, low, strict=True)]
        weight = _weight(lesion, to_the_wall(out[box], lung[box], spacing_mm), spacing_mm, centre, rng)
        out[box] = displace_air(out[box], weight, lesion, [centre], spacing_mm, rng)
        mask[box] |= (weight > LABEL_FROM) & lung[box]
    return out, mask


def to_the_wall(hu: Floats, lung: Flags, spacing_mm: Spacing) -> Flags:
    """``lung`` and the voxels beside it that are part air: filled, a lesion reaches the pleura without a dark rim.

    Masks end where a voxel is half lung; what is left of the air there would show beside consolidation, and a network
    would learn the rim. Above and below it is looked for where voxels are about as high as wide, at the domes of a
    coarse scan above all.
    """
    steps = max(1, round(WALL_MM / spacing_mm[1]))
    is_flat = spacing_mm[0] > HIGHER_THAN_WIDE * spacing_mm[1]
    beside = ndimage.generate_binary_structure(2, 1)[None] if is_flat else ndimage.generate_binary_structure(3, 3)
    grown = ndimage.binary_dilation(lung, beside, iterations=steps)
    wider: Flags = lung | (grown & (hu < PART_AIR_HU))
    return wider


def _weight(
    lesion: DrawnLesion, lung: Flags, spacing_mm: Spacing, centre: Sequence[float], rng: np.random.Generator
) -> Floats:
    """How much of the lesion is in each voxel, 0 to 1: an ellipsoid with a ragged, soft border, cut by the lung."""
    depth = fields.ellipsoid(lung.shape, spacing_mm, centre, lesion.radii_mm, lesion.angle)
    size = float(np.prod(lesion.radii_mm)) ** (1 / 3)
    depth += lesion.ragged * 0.35 * size * fields.noise(lung.shape, spacing_mm, max(4.0, size / 2.5), rng)
    depth += lesion.ragged * 1.5 * fields.noise(lung.shape, spacing_mm, 4.0, rng)
    weight: Floats = fields.sigmoid(depth * 2.2 / lesion.border_mm) * lung
    return weight


def displace_air(
    hu: Floats,
    weight: Floats,
    lesion: DrawnLesion,
    centres: Sequence[Sequence[float]],
    spacing_mm: Spacing,
    rng: np.random.Generator,
) -> Floats:
    """Displace air by tissue with the lesion's pattern, as far as ``weight`` (0 to 1) says.

    Air bronchograms, where there are any, branch around each of ``centres`` (voxels ``(z, y, x)``).
    """
    shape = hu.shape
    fraction = lesion.fraction * (1 + lesion.texture * fields.noise(shape, spacing_mm, lesion.texture_mm, rng))
    if lesion.kind in (Kind.RETICULATION, Kind.CRAZY_PAVING):
        lines = _net(shape, spacing_mm, rng)
        base = fraction * (0.35 if lesion.kind is Kind.RETICULATION else 0.8)
        fraction = np.maximum(base, lines * rng.uniform(0.45, 0.8))
    if lesion.kind is Kind.MIXED:
        core = fields.sigmoid(4 * (fields.noise(shape, spacing_mm, 9.0, rng) - rng.uniform(0.0, 0.8)))
        fraction = fraction * (1 - core) + rng.uniform(0.75, 1.0) * core
    if lesion.kind in (Kind.CONSOLIDATION, Kind.MIXED) and rng.random() < BRONCHOGRAMS:
        for centre in centres:
            fraction = np.where(_bronchi(shape, centre, lesion, spacing_mm, rng), 0.05, fraction)
    fraction = np.clip(fraction, 0.03, 1.0) * weight
    grain = rng.uniform(4, 22) * fields.noise(shape, spacing_mm, 1.0, rng)
    tissue = rng.uniform(SOLID_HU - 30, SOLID_HU + 30)
    filled: Floats = hu + fraction * np.maximum(tissue - hu, 0) + weight * grain * (hu < tissue)
    return filled.astype(np.float32)


def _net(shape: Sequence[int], spacing_mm: Spacing, rng: np.random.Generator) -> Floats:
    """Thin lines, 0 to 1: where two fields of noise cross zero (thickened septa)."""
    scale = rng.uniform(4.0, 9.0)
    first, second = (fields.noise(shape, spacing_mm, scale, rng) for _ in range(2))
    width = rng.uniform(0.12, 0.3)
    lines: Floats = np.exp(-((np.minimum(np.abs(first), np.abs(second)) / width) ** 2))
    return lines


def _bronchi(
    shape: Sequence[int], centre: Sequence[float], lesion: DrawnLesion, spacing_mm: Spacing, rng: np.random.Generator
) -> Flags:
    """Air-filled branches through a consolidation."""
    reach = np.array(lesion.radii_mm) / np.array(spacing_mm)
    root = np.array(centre) + reach * rng.uniform(-1, 1, 3) * (0.4, 1.2, 1.2)
    tips = np.array(centre) + reach * rng.uniform(-0.9, 0.9, (int(rng.integers(2, 6)), 3))
    return fields.tree(shape, spacing_mm, root, tips, float(rng.uniform(1.0, 2.4)))
