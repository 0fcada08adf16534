"""Lungs without air, and what lies below them, as a look at a whole scan sees both at a few millimetres.

`consolidate` fills lower lobes, one lung or nearly all of both, up to the pleura, with what has the HU of the heart;
fluid may lie behind. `lengthen` gives a scan of the chest more of a belly, `join_belly` that of another patient. Arrays
are ``(z, y, x)``, RAS order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from carina.synth import fields
from carina.synth.lesions import SOLID_HU
from carina.volume.arrays import HU, Flags, Floats

SOAKED_HU = (15.0, 70.0)
"""Consolidation without air; with contrast medium it is brighter than muscle."""

AIRLESS_SHARES = (0.1, 0.97)
"""The share of a lung that is dense, drawn evenly."""

WITH_BRONCHI = 0.3
"""The share of draws in which some of the bronchi keep their air."""

LEAST_BODY_HU, AROUND_HU = -300, -1000.0
LEAST_SIDE = 8
"""Voxels that a body is high and wide at least."""

RAGGED_MM = (0.0, 14.0)
"""How far the border of what is dense wanders."""


def consolidate(hu: Floats, lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[Floats, Flags]:
    """``hu`` with a part of one lung or of both without air, and that part: mostly below and behind, at times anywhere.

    Nothing happens without lung.
    """
    dense = np.zeros(lung.shape, dtype=np.bool_)
    if not lung.any():
        return hu, dense
    side = _left(lung)
    chosen = (lung,) if rng.random() < 0.3 else (lung & side, lung & ~side)
    which = rng.random(len(chosen)) < 0.7
    which[int(rng.integers(len(chosen)))] = True
    for one, wanted in zip(chosen, which, strict=True):
        if wanted and one.any():
            dense |= _part(one, spacing_mm, rng)
    grain = rng.uniform(3, 20) * fields.noise(hu.shape, spacing_mm, float(rng.uniform(4, 20)), rng)
    filling = float(rng.uniform(*SOAKED_HU)) + grain
    if rng.random() < WITH_BRONCHI:
        air = fields.noise(hu.shape, spacing_mm, float(rng.uniform(4, 12)), rng) > rng.uniform(1.2, 2.2)
        filling = np.where(air, filling - rng.uniform(200, 700), filling)
    weight = np.maximum(ndimage.gaussian_filter(dense.astype(np.float32), rng.uniform(0.0, 1.2)), dense * 0.85) * lung
    return np.asarray(hu + weight * (filling - hu), dtype=np.float32), dense


def _left(lung: Flags) -> Flags:
    columns = np.flatnonzero(lung.any(axis=(0, 1)))
    flags = np.zeros(lung.shape, dtype=np.bool_)
    flags[..., : (columns[0] + columns[-1]) // 2] = True
    return flags


def _part(lung: Flags, spacing_mm: Sequence[float], rng: np.random.Generator) -> Flags:
    """The share of ``lung`` that lies farthest along a direction: down and back, tilted as fissures are."""
    z, y, x = (np.arange(n, dtype=np.float32) * s for n, s in zip(lung.shape, spacing_mm, strict=True))
    down, back, aside = (1.0, 0.7, 0.2) if rng.random() < 0.75 else rng.normal(0, 1, 3)
    tilt = (down * rng.uniform(0.4, 1.2), back * rng.uniform(0.3, 1.3), aside * rng.uniform(-1, 1))
    place = -tilt[0] * z[:, None, None] - tilt[1] * y[:, None] + tilt[2] * x
    place = place + float(rng.uniform(*RAGGED_MM)) * fields.noise(lung.shape, spacing_mm, rng.uniform(15, 40), rng)
    found: Flags = lung & (place >= np.quantile(place[lung], 1 - rng.uniform(*AIRLESS_SHARES)))
    return found


def lengthen(hu: Floats, lung: Flags, lowest: int, rng: np.random.Generator) -> Floats:
    """``hu`` with what lies below slice ``lowest``, the scan's last, drawn as a belly: slices without lung, repeated.

    Nothing is drawn where the lowest slice still shows lung, or is the first.
    """
    if lowest <= 0 or lung[lowest].any():
        return hu
    free = np.flatnonzero(~lung[lowest:].any(axis=(1, 2)))
    height = int(np.argmax(np.diff(np.append(free, len(lung))) != 1)) + 1
    count = int(rng.integers(1, lowest + 1))
    walk = np.abs((np.arange(1, count + 1) + height - 1) % max(2 * height - 2, 1) - (height - 1))
    out = hu.copy()
    out[lowest - count : lowest] = hu[lowest + (height - 1 - walk if height > 1 else walk * 0)][::-1]
    return out


def join_belly(hu: Floats, lung: Flags, lowest: int, belly: HU, step: float, rng: np.random.Generator) -> Floats:
    """``hu`` with the ``belly`` of another patient below slice ``lowest``, the scan's last, as wide and deep as that.

    ``belly`` is a scan without lungs; ``step`` is how many of its slices are one of ``hu``. It begins somewhere in its
    upper half. Nothing is drawn where the lowest slice still shows lung, or is the first.
    """
    if lowest <= 0 or lung[lowest].any():
        return hu
    top = float(rng.uniform(0.4, 1.0)) * (len(belly) - 1)
    count = min(int(rng.integers(1, lowest + 1)), 1 + int(top / step))
    ours, theirs = _extent(hu[lowest]), _extent(belly[round(top)])
    if ours is None or theirs is None:
        return hu
    zooms = [(b - a) / (d - c) for (c, d), (a, b) in zip(ours, theirs, strict=True)]
    firsts = [a - zoom * c for zoom, (c, _), (a, _) in zip(zooms, ours, theirs, strict=True)]
    part = ndimage.affine_transform(
        belly.astype(np.float32),
        np.array([step, *zooms]),
        offset=[top - step * (count - 1), *firsts],
        output_shape=(count, *hu.shape[1:]),
        order=1,
        mode="constant",
        cval=AROUND_HU,
    )
    out = hu.copy()
    out[lowest - count : lowest] = part
    return out


def _extent(plane: Floats | HU) -> list[tuple[int, int]] | None:
    """First and last row and column of the body in a slice; None where it is too small to be one."""
    body = ndimage.binary_opening(plane > LEAST_BODY_HU, iterations=2)
    places = [np.flatnonzero(body.any(axis=axis)) for axis in (1, 0)]
    if any(len(place) < LEAST_SIDE for place in places):
        return None
    return [(int(place[0]), int(place[-1])) for place in places]


def white_out(hu: Floats, lung: Flags, rng: np.random.Generator) -> Floats:
    """``hu`` with a breath that leaves hardly any air: every voxel of ``lung`` a share of the way to tissue."""
    return np.asarray(hu + lung * rng.uniform(0.3, 0.95) * np.maximum(SOLID_HU - hu, 0), dtype=np.float32)
