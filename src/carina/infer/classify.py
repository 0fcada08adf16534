"""Classification: a volume, its lung mask and a bundle in, a probability for each class out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from carina.errors import BadSeries, ModelFailed
from carina.infer.runtime import Runtime
from carina.models.bundle import Bundle, Covid, NetworkOutput, Order
from carina.volume.arrays import Box, bounding_box
from carina.volume.grid import Grid
from carina.volume.resample import cropped, reorient, resample
from carina.volume.volume import Mask, Volume

LEAST_PROBABILITY = 1e-12
"""Of a probability whose logarithm is taken."""


def classify(volume: Volume, lung: Mask, bundle: Bundle, runtime: Runtime) -> dict[str, float]:
    """The probability of each of the bundle's classes by name; they sum to 1.

    Raises:
        BadSeries: ``lung.none``, the mask is empty, so there is nothing to classify; ``mask.grid``, the mask does not
            lie on the volume's grid.
        ValueError: the bundle's task is no classification.
        ModelFailed: the network failed.
    """
    spec = classifier(bundle)
    return by_name(network_input(volume, lung, spec), spec, runtime)


def by_name(image: npt.NDArray[np.float32], spec: Covid, runtime: Runtime) -> dict[str, float]:
    """The probability of each class by name, of one network input ``(x, y, z)``.

    Raises:
        ModelFailed: as ``probabilities``.
    """
    (found,) = probabilities(image[None, None], spec, runtime)
    return {spec.labels[number]: float(value) for number, value in enumerate(found)}


def classifier(bundle: Bundle) -> Covid:
    """How a bundle classifies.

    Raises:
        ValueError: the bundle's task is no classification.
    """
    spec = bundle.carina
    if not isinstance(spec, Covid):
        raise ValueError(f"bundle {bundle.name} does not classify, its task is {spec.task}")
    return spec


def probabilities(images: npt.NDArray[np.float32], spec: Covid, runtime: Runtime) -> npt.NDArray[np.float64]:
    """Class probabilities ``(n, classes)``, each row summing to 1, of network inputs ``(n, 1, x, y, z)``.

    Calibrated by the bundle's temperature and shifts.

    Raises:
        ModelFailed: the network failed, or gave other than a score for each class of each input.
    """
    scores = runtime(images).astype(np.float64)
    if scores.shape != (len(images), len(spec.labels)):
        raise ModelFailed(
            "model.scores",
            f"The network gave scores of shape {scores.shape}, expected {(len(images), len(spec.labels))}: "
            "one row for each input, one score for each of the bundle's labels.",
        )
    if spec.output is not NetworkOutput.LOGITS:
        scores = np.log(np.maximum(scores, LEAST_PROBABILITY))
    scores = scores / spec.temperature + [spec.shifts.get(label, 0.0) for label in range(len(spec.labels))]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: npt.NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
    return found


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
    box = lung_box(mask, spec.margin_voxels)
    grid, clip = cropped(grid, box), spec.window_hu if spec.order is Order.DEFAULT else None
    low, high = spec.window_hu
    image = (resample(view[box], grid, resized(grid, spec.size), clip=clip) - low) / (high - low)
    return np.ascontiguousarray(np.clip(image, 0, 1).transpose(2, 1, 0), dtype=np.float32)


def lung_box(mask: npt.NDArray[np.uint8], margin: int) -> Box:
    """The box of everything labelled and ``margin`` voxels around it, within the array.

    Raises:
        BadSeries: ``lung.none``, nothing is labelled.
    """
    box = bounding_box(mask, margin)
    if box is None:
        raise BadSeries(
            "lung.none",
            "No lung was found in this series, so there is nothing to classify; expected a chest CT. "
            "Look at the lung mask, or choose another series.",
        )
    return box


def resized(grid: Grid, size: tuple[int, int, int]) -> Grid:
    """A grid of ``size`` ``(x, y, z)`` voxels with the same outer faces."""
    x, y, z = size
    ratio = [old / new for old, new in zip(grid.shape, (z, y, x), strict=True)]
    dz, dy, dx = (spacing * r for spacing, r in zip(grid.spacing_mm, ratio, strict=True))
    ox, oy, oz = (float(v) for v in grid.points_mm([(r - 1) / 2 for r in ratio]))
    return replace(grid, shape=(z, y, x), spacing_mm=(dz, dy, dx), origin_mm=(ox, oy, oz))
