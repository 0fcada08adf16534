"""Stomach and colon below the dome of the diaphragm: gas, fluid, food and stool that a lung network takes for lung.

A stomach has gas in front of fluid (patients lie on their backs), with a sharp level between them; a colon is a bent
tube whose haustra bulge between folds, filled with gas, mottled stool, or both with a level of their own. Walls are
soft tissue. Shapes and HU by the anatomy of CT textbooks; nothing is measured from a patient.

Arrays are ``(z, y, x)`` in RAS order; every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.volume.arrays import Flags, Floats

ROOM_HU = (-200.0, 220.0)
"""Fat, organs, blood: what an organ may take the place of; bone, averaged over a few pixels, lies above."""

BACK_SHARE = 0.4
"""The share of the room below the lungs, from the back, that holds spine and kidneys, and no organ's middle."""

LEAST_TISSUE_ML = 60.0
"""With less of the belly in view nothing is drawn."""

DIAPHRAGM_MM = (1.5, 6.0)
"""What is left between lung and organ."""

BESIDE_MM = 8.0
"""How far beside the lungs the dome's slope still counts as below them."""

STEP_MM = 4.0
"""How far apart the spheres lie that a colon is made of."""

ORGAN_WALL_MM = (1.5, 4.0)
BOWEL_GAS_HU = (-1000.0, -960.0)
LUMEN_HU = (0.0, 45.0)
STOOL_HU = (-350.0, 60.0)
WALL_HU = (25.0, 60.0)

_EDGE_MM = 0.8
"""Half the width of the border between what fills an organ and its wall."""


def draw_abdomen(
    hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator
) -> tuple[Floats, Flags]:
    """Put a stomach, a colon or both below the lungs, where ``hu`` shows tissue.

    Returns the new HU and where an organ lies, its wall included, which is never lung; nothing is drawn where too
    little of the belly is in view.
    """
    out, organs = hu, np.zeros(hu.shape, dtype=np.bool_)
    smooth = ndimage.gaussian_filter(hu, (0, 2, 2))
    room = under_lungs(lung, spacing_mm, float(rng.uniform(*DIAPHRAGM_MM)))
    room &= (hu > ROOM_HU[0]) & (smooth < ROOM_HU[1])
    chosen = rng.random()
    for draw, is_drawn, stool in ((_stomach, chosen < 0.75, 0.25), (_colon, chosen > 0.35, 0.7)):
        if is_drawn and np.count_nonzero(room) * float(np.prod(spacing_mm)) / 1000 >= LEAST_TISSUE_ML:
            depth = np.minimum(draw(room, spacing_mm, rng), fields.depth_in(room, spacing_mm))
            out = _filled(out, depth, spacing_mm, rng, stool=rng.random() < stool)
            organs |= depth > 0
            room &= ~organs
    return out, organs


def under_lungs(lung: Flags, spacing_mm: Sequence[float], away_mm: float) -> Flags:
    """Voxels with lung above them (or `BESIDE_MM` beside), none below, and ``away_mm`` to the next lung at least."""
    side = 2 * round(BESIDE_MM / spacing_mm[1]) + 1
    wide = ndimage.maximum_filter(lung.view(np.uint8), (1, side, side)).astype(np.bool_)
    above = np.logical_or.accumulate(wide[::-1], axis=0)[::-1]
    free: Flags = above & ~np.logical_or.accumulate(wide, axis=0)
    return free & (fields.depth_in(~lung, spacing_mm) > away_mm)


def _stomach(room: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """Depth in mm inside a stomach, positive inside: a ragged ellipsoid below the left dome."""
    centre = _place(room, rng, left=True)
    radii = [float(rng.uniform(20, 45)), float(rng.uniform(25, 55)), float(rng.uniform(25, 55))]
    depth = fields.ellipsoid(room.shape, spacing_mm, centre, radii, float(rng.uniform(0, np.pi)))
    return depth + float(rng.uniform(1, 5)) * fields.noise(room.shape, spacing_mm, 25.0, rng)


def _colon(room: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """Depth in mm inside a colon: spheres along a bent line, smaller at the folds between haustra."""
    spacing = np.array(spacing_mm)
    knots = np.array([_place(room, rng, left=rng.random() < 0.7) for _ in range(int(rng.integers(3, 6)))]) * spacing
    radius, haustra_mm = float(rng.uniform(14, 26)), float(rng.uniform(18, 35))
    steps = [
        a + (b - a) * t
        for a, b in pairwise(knots)
        for t in np.linspace(0, 1, max(2, int(np.linalg.norm(b - a) / STEP_MM)), endpoint=False)
    ]
    line = ndimage.gaussian_filter1d(np.array(steps), 3.0, axis=0, mode="nearest")
    depth = np.full(room.shape, -radius, dtype=np.float32)
    for number, point in enumerate(line):
        bulge = radius * (0.72 + 0.28 * abs(np.sin(np.pi * number * STEP_MM / haustra_mm)))
        low = np.maximum(np.floor((point - bulge) / spacing), 0).astype(int)
        high = np.minimum(np.ceil((point + bulge) / spacing) + 1, room.shape).astype(int)
        box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        grid = np.ogrid[box]
        far = sum((g * s - p) ** 2 for g, s, p in zip(grid, spacing, point, strict=True))
        depth[box] = np.maximum(depth[box], bulge - np.sqrt(np.asarray(far)))
    return depth


def _place(room: Flags, rng: np.random.Generator, *, left: bool) -> tuple[float, float, float]:
    """A voxel ``(z, y, x)`` of ``room``, near the diaphragm, not at the back; on the left (x is small) or anywhere."""
    points = np.argwhere(room)
    points = points[points[:, 1] >= np.quantile(points[:, 1], BACK_SHARE)]
    if left:
        middle = (points[:, 2].min() + points[:, 2].max()) / 2
        points = points[points[:, 2] <= middle]
    points = points[rng.integers(0, len(points), 200)]
    z, y, x = points[np.argsort(points[:, 0])[int(rng.integers(100, 200))]]
    return float(z), float(y), float(x)


def _filled(hu: Floats, depth: Floats, spacing_mm: Sequence[float], rng: np.random.Generator, *, stool: bool) -> Floats:
    """``hu`` with wall and content where ``depth`` (mm, positive inside) says: gas in front of what is heavier."""
    inside = depth > 0
    if not inside.any():
        return hu
    rows = np.flatnonzero(inside.any(axis=(0, 2)))
    level = rows[0] + (rows[-1] - rows[0]) * rng.uniform(-0.2, 1.1)
    in_front = fields.sigmoid((np.arange(hu.shape[1], dtype=np.float32)[:, None] - level) * spacing_mm[1] / _EDGE_MM)
    content = _stool(hu.shape, spacing_mm, rng) if stool else np.full(hu.shape, rng.uniform(*LUMEN_HU), np.float32)
    content += float(rng.uniform(2, 12)) * fields.noise(hu.shape, spacing_mm, 3.0, rng)
    content = in_front * float(rng.uniform(*BOWEL_GAS_HU)) + (1 - in_front) * content
    lumen = fields.sigmoid((depth - float(rng.uniform(*ORGAN_WALL_MM))) * 2 / _EDGE_MM)
    organ = lumen * content + (1 - lumen) * float(rng.uniform(*WALL_HU))
    filled: Floats = np.where(inside, organ, hu).astype(np.float32)
    return filled


def _stool(shape: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """Stool: denser and lighter pieces, with bubbles of gas."""
    low, high = STOOL_HU
    mottled = fields.sigmoid(1.5 * fields.noise(shape, spacing_mm, float(rng.uniform(4, 10)), rng))
    bubbles = fields.noise(shape, spacing_mm, float(rng.uniform(2, 5)), rng) > rng.uniform(1.2, 2.2)
    stool: Floats = np.where(bubbles, rng.uniform(*BOWEL_GAS_HU), low + (high - low) * mottled).astype(np.float32)
    return stool
