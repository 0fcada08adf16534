"""Classification: a volume, its lung mask and a bundle in, a probability for each class out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from carina.errors import BadSeries
from carina.infer.runtime import Runtime
from carina.models.bundle import Bundle, Covid, Order, Output
from carina.volume.grid import Grid
from carina.volume.resample import Box, cropped, reorient, resample
from carina.volume.volume import Mask, Volume


def classify(volume: Volume, lung: Mask, bundle: Bundle, runtime: Runtime) -> dict[str, float]:
    """The probability of each of the bundle's classes by name; they sum to 1.

    Raises:
        BadSeries: ``lung.none``, the mask is empty, so there is nothing to classify; ``mask.grid``, the mask does not
            lie on the volume's grid.
        ValueError: the bundle's task is no classification.
        ModelFailed: the network failed.
    """
    spec = bundle.carina
    if not isinstance(spec, Covid):
        raise ValueError(f"bundle {bundle.name} does not classify, its task is {spec.task}")
    scores = runtime(network_input(volume, lung, spec)[None, None])[0].astype(np.float64)
    if spec.output is Output.LOGITS:
        scores = np.exp(scores - scores.max())
    scores = scores / scores.sum()
    return {spec.labels[number]: float(score) for number, score in enumerate(scores)}


def network_input(volume: Volume, lung: Mask, spec: Covid) -> npt.NDArray[np.float32]:
    """What the classifier sees: the lungs' box and its margin, resized and windowed; ``(x, y, z)``, 0 to 1.

    The mask sets the box only, voxels outside the lungs stay. The resize is linear over the box's full extent (voxels
    are cells, as torch's ``interpolate`` with ``align_corners=False``).

    Raises:
        BadSeries: as ``classify``.
    """
    if not lung.grid.same_place(volume.grid):
        raise BadSeries(
            "mask.grid",
            f"The lung mask has shape {lung.grid.shape} at {lung.grid.origin_mm}, the volume {volume.grid.shape} at "
            f"{volume.grid.origin_mm}; expected a mask on the volume's grid, made from the same series.",
        )
    view, grid = reorient(volume.hu, volume.grid, spec.orientation)
    mask, _ = reorient(lung.labels, lung.grid, spec.orientation)
    box = _box(mask, spec.margin_voxels)
    hu, grid = view[box], cropped(grid, box)
    low, high = spec.window_hu
    if spec.order is Order.DEFAULT:
        hu = np.clip(hu, low, high).astype(np.float32)
    image = (resample(hu, grid, _resized(grid, spec.size)) - low) / (high - low)
    return np.ascontiguousarray(np.clip(image, 0, 1).transpose(2, 1, 0), dtype=np.float32)


def _box(mask: npt.NDArray[np.uint8], margin: int) -> Box:
    parts = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        if not len(filled):
            raise BadSeries(
                "lung.none",
                "No lung was found in this series, so there is nothing to classify; expected a chest CT. "
                "Look at the lung mask, or choose another series.",
            )
        parts.append(slice(max(int(filled[0]) - margin, 0), min(int(filled[-1]) + 1 + margin, size)))
    return (parts[0], parts[1], parts[2])


def _resized(grid: Grid, size: tuple[int, int, int]) -> Grid:
    """A grid of ``size`` ``(x, y, z)`` voxels with the same outer faces."""
    x, y, z = size
    ratio = [old / new for old, new in zip(grid.shape, (z, y, x), strict=True)]
    dz, dy, dx = (spacing * r for spacing, r in zip(grid.spacing_mm, ratio, strict=True))
    ox, oy, oz = (float(v) for v in grid.points_mm([(r - 1) / 2 for r in ratio]))
    return replace(grid, shape=(z, y, x), spacing_mm=(dz, dy, dx), origin_mm=(ox, oy, oz))
