"""Smooth random fields and shapes in millimetres, drawn from a generator: the raw material of synthetic lesions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume.arrays import Flags, Floats

ORIENTATION = "RAS"
"""The order of every array in this room: ``(z, y, x)`` with z towards superior, y anterior, x the right."""


def noise(shape: Sequence[int], spacing_mm: Sequence[float], scale_mm: float, rng: np.random.Generator) -> Floats:
    """Correlated Gaussian noise ``(z, y, x)``, mean 0, standard deviation about 1, correlation length ``scale_mm``.

    White noise on a grid of ``scale_mm``, interpolated linearly; blobs of about that size.
    """
    steps = [max(scale_mm / s, 1.0) for s in spacing_mm]
    coarse = rng.standard_normal([int(np.ceil(n / f)) + 3 for n, f in zip(shape, steps, strict=True)]).astype(
        np.float32
    )
    start = rng.uniform(0, 1, 3)
    out = coarse
    for axis, (n, f) in enumerate(zip(shape, steps, strict=True)):
        out = _along(out, start[axis] + np.arange(n) / f, axis)
    return (out / max(float(out.std()), 1e-6)).astype(np.float32)


def _along(array: Floats, at: npt.NDArray[np.float64], axis: int) -> Floats:
    """Linear interpolation along one axis at fractional indices."""
    low = at.astype(int)
    part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    mixed: Floats = np.take(array, low, axis) * (1 - part) + np.take(array, low + 1, axis) * part
    return mixed


def ellipsoid(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    centre: Sequence[float],
    radii_mm: Sequence[float],
    angle: float,
) -> Floats:
    """Signed depth in mm, positive inside, of an ellipsoid turned by ``angle`` in the axial plane.

    ``centre`` is in voxels ``(z, y, x)``; the depth is exact for a sphere, approximate otherwise.
    """
    z, y, x = (
        ((np.arange(n) - c) * s).astype(np.float32).reshape([-1 if a == i else 1 for a in range(3)])
        for i, (n, c, s) in enumerate(zip(shape, centre, spacing_mm, strict=True))
    )
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.sqrt((z / radii_mm[0]) ** 2 + (u / radii_mm[1]) ** 2 + (v / radii_mm[2]) ** 2)
    depth: Floats = ((1.0 - radius) * float(np.prod(radii_mm)) ** (1 / 3)).astype(np.float32)
    return depth


def sigmoid(x: Floats) -> Floats:
    """The logistic function, safe for large values."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30, 30))), dtype=x.dtype)


def depth_in(mask: Flags, spacing_mm: Sequence[float]) -> Floats:
    """Distance in mm from the nearest voxel outside ``mask``; the array's border does not count as outside."""
    padded = np.pad(mask, 1, mode="edge")
    depth: Floats = ndimage.distance_transform_edt(padded, sampling=spacing_mm)[1:-1, 1:-1, 1:-1].astype(np.float32)
    return depth


def tree(
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    root: Sequence[float],
    tips: npt.NDArray[np.float64],
    radius_mm: float,
) -> Flags:
    """Branches from ``root`` to each of ``tips`` (voxels, ``(z, y, x)``), thinning from ``radius_mm`` to half of it."""
    out = np.zeros(tuple(shape), dtype=bool)
    spacing = np.array(spacing_mm)
    for tip in tips:
        bend = (np.asarray(root) + tip) / 2 + np.array([0.0, 4.0, -4.0])
        length_mm = float(np.linalg.norm((tip - np.asarray(root)) * spacing))
        for t in np.linspace(0, 1, max(4, int(length_mm / 0.8))):
            point = (1 - t) ** 2 * np.asarray(root) + 2 * t * (1 - t) * bend + t**2 * tip
            reach = radius_mm * (1 - 0.5 * t) / spacing
            low = np.maximum(np.floor(point - reach), 0).astype(int)
            high = np.minimum(np.ceil(point + reach) + 1, shape).astype(int)
            if (high <= low).any():
                continue
            grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            far = sum(((g - p) / max(r, 0.3)) ** 2 for g, p, r in zip(grid, point, reach, strict=True))
            out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= np.asarray(far) <= 1.0
    return out
