"""Disease that takes a share of the lungs, up to nearly all of them. Arrays are ``(z, y, x)``.

A field of smoothed noise says where a patient falls ill first; what lies above its quantile is ill. The same field for
every share makes one course of disease: what is ill at 30 % is ill at 50 % too.

Two painters, so that what measures is not what taught: `fill` paints one density, to see how a network answers to
severity with everything else alike; `paste_severe` draws disease as `lesions` does, for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.synth.lesions import (
    LABEL_FROM,
    DrawnLesion,
    Kind,
    displace_air,
    draw_fraction,
    log_uniform,
    to_the_wall,
    without_air,
)
from carina.volume.arrays import HU, Flags, Floats

PLACES_VOXELS = (4.0, 12.0, 12.0)
"""What the noise that chooses places is smoothed by."""

BORDER_VOXELS = (1.0, 2.0, 2.0)
"""What the border of painted disease is softened by."""

GRAIN_VOXELS = (0.5, 1.0, 1.0)
"""What the texture of painted disease is smoothed by."""


@dataclass(frozen=True, kw_only=True)
class Filling:
    """What ill lung looks like: its mean, and the standard deviation of its texture."""

    hu: float
    texture_hu: float


FILLINGS = {
    "ground-glass": Filling(hu=-550.0, texture_hu=40.0),
    "consolidation": Filling(hu=20.0, texture_hu=20.0),
}

SEVERE_SHARES = (0.2, 0.95)
"""Shares of the lung in a patch that severe disease takes, drawn evenly."""

SEVERE_KINDS = {Kind.GROUND_GLASS: 0.3, Kind.CONSOLIDATION: 0.4, Kind.CRAZY_PAVING: 0.15, Kind.MIXED: 0.15}
"""What severe disease looks like, by its share."""

SEVERE_GLASS = (0.2, 0.6)
"""The air that severe ground glass displaces: fainter, all over a lung, is a breath less (`distractors.breath`)."""


@dataclass(frozen=True, kw_only=True)
class SevereDisease:
    """What severe disease is drawn of: the ``shares`` of the lung that it takes, and one kind or, None, any.

    Of consolidations the share ``airless`` holds no air.
    """

    shares: tuple[float, float] = SEVERE_SHARES
    kind: Kind | None = None
    airless: float = 0.0


_TREES = 6
"""Air bronchograms of severe disease branch around so many places."""


def course(shape: Sequence[int], rng: np.random.Generator) -> Floats:
    """A smooth random field; where it is high, disease begins."""
    field: Floats = ndimage.gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), PLACES_VOXELS)
    return field


def ill_part(lung: Flags, field: Floats, share: float) -> Flags:
    """Where ``field`` is highest in ``lung``: ``share`` (0 to 1) of its voxels.

    Raises:
        ValueError: the lung is empty, or the share lies outside 0 to 1.
    """
    if not 0 <= share <= 1 or not lung.any():
        raise ValueError(f"a share of 0 to 1 of a lung that is there can be ill, not {share} of {lung.sum()} voxels")
    ill: Flags = lung & (field > np.quantile(field[lung], 1 - share)) if share < 1 else lung.copy()
    return ill


def fill(hu: HU, ill: Flags, filling: Filling, rng: np.random.Generator) -> HU:
    """``hu`` with ``ill`` filled; borders are soft, and what is denser than the filling stays (vessels, walls)."""
    grain = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), GRAIN_VOXELS)
    grain *= filling.texture_hu / max(float(grain.std()), 1e-6)
    grain += filling.hu
    weight = ndimage.gaussian_filter(ill.astype(np.float32), BORDER_VOXELS)
    painted: HU = np.rint(hu + weight * np.maximum(grain - hu, 0)).astype(np.int16)
    return painted


def paste_severe(
    hu: Floats,
    lung: Flags,
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
    severe: SevereDisease = SevereDisease(),
) -> tuple[Floats, Flags]:
    """Put severe disease into ``lung``, up to the tissue around it; kinds are drawn by `SEVERE_KINDS`.

    Patches of 8 to 50 mm, more often behind in half of the draws. RAS order. Returns the new HU and the mask, which
    stays inside ``lung``; without lung, nothing happens.
    """
    if not lung.any():
        return hu, np.zeros(hu.shape, dtype=np.bool_)
    size_mm = log_uniform((8.0, 50.0), rng)
    field = fields.noise(hu.shape, spacing_mm, size_mm, rng)
    field += rng.uniform(0.1, 0.5) * fields.noise(hu.shape, spacing_mm, size_mm / 4, rng)
    if rng.random() < 0.5:
        field -= rng.uniform(0.5, 2.0) * np.linspace(-1, 1, hu.shape[1], dtype=np.float32)[:, None]
    ill = ill_part(lung, field, float(rng.uniform(*severe.shares)))
    kind = severe.kind or list(SEVERE_KINDS)[int(rng.choice(len(SEVERE_KINDS), p=list(SEVERE_KINDS.values())))]
    (lesion,) = without_air([_drawn(kind, rng)], severe.airless, rng)
    reach = [lesion.border_mm / 2 / step for step in spacing_mm]
    inside = np.maximum(ndimage.gaussian_filter(lung.astype(np.float32), reach), 1e-3)
    weight = np.minimum(ndimage.gaussian_filter(ill.astype(np.float32), reach) / inside, 1)
    weight = weight * to_the_wall(hu, lung, spacing_mm)
    places = np.argwhere(ill).astype(float)
    centres = places[rng.integers(0, max(len(places), 1), _TREES if len(places) else 0)]
    out = displace_air(hu, weight, lesion, centres.tolist(), spacing_mm, rng)
    return out, (weight > LABEL_FROM) & lung


def _drawn(kind: Kind, rng: np.random.Generator) -> DrawnLesion:
    """What fills severe disease; its radii are those of the branches of air in it."""
    solid = kind is Kind.CONSOLIDATION
    return DrawnLesion(
        kind=kind,
        centre=(0.0, 0.0, 0.0),
        radii_mm=(30.0, 30.0, 30.0),
        angle=0.0,
        border_mm=log_uniform((0.3, 4.0), rng),
        fraction=draw_fraction(rng, solid=solid, glass=SEVERE_GLASS),
        texture=float(rng.uniform(0.0, 0.1) if solid else rng.uniform(0.02, 0.6)),
        texture_mm=log_uniform((1.5, 15.0), rng),
        ragged=0.0,
    )
