"""Saliency of a classifier by occlusion: what its probability depends on, found without gradients.

Zeiler and Fergus, "Visualizing and understanding convolutional networks" (ECCV 2014), section 4.2: a part of the input
is hidden and the network asked again. It needs nothing but the network's answers, so it works in every runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from carina.errors import ModelFailed
from carina.infer.classify import classifier, lung_box, network_input, probabilities, resized
from carina.infer.runtime import Runtime
from carina.models.bundle import Bundle, Covid
from carina.volume.arrays import Box, Floats
from carina.volume.grid import Grid
from carina.volume.resample import cropped, each_slice, parallel, reoriented, resample
from carina.volume.volume import Mask, ScalarMap, Volume

AERATED_PERCENTILE = 25
"""Of the lung's HU: aerated lung, also where up to three quarters of the lung are ill."""

SEEN_VOXELS = 1_000_000
"""About how many voxels of the lungs' box are enough for a percentile."""

DIGITS_BITS = 10
"""Results are multiples of 2 ** -10 (0.001): finer differences mean nothing, and the file is small."""

UNIT = "change of probability"


def saliency(
    volume: Volume,
    lung: Mask,
    bundle: Bundle,
    runtime: Runtime,
    progress: Callable[[int, int], None] | None = None,
) -> ScalarMap:
    """By how much the probability of the watched class falls when a place is hidden; negative: it rises.

    The network's input is parted into ``bundle.carina.saliency.blocks``, and each block in turn is hidden: filled with
    the HU of this scan's own aerated lung. A local mean or a blur would leave ground glass as it is, the mean of the
    crop looks like ground glass itself, and air is nowhere in a lung; aerated lung is what a hidden lesion is compared
    with. Blocks fade into their neighbours over half their width (the fillings add up to one everywhere), so that no
    edge is drawn into the scan. The changes are interpolated linearly between the blocks' middles, on the volume's
    grid; 0 outside the lungs' box. ``progress`` hears the runs of the network done and their count.

    Raises:
        BadSeries: as ``classify``.
        ValueError: the bundle's task is no classification.
        ModelFailed: the network failed.
    """
    spec = classifier(bundle)
    image = network_input(volume, lung, spec)
    box = lung_box(lung.labels, spec.margin_voxels)
    inside = cropped(volume.grid, box)
    lattice = resized(reoriented(inside, spec.orientation), blocks_of(spec))
    changes = _changes(image, _aerated(volume, lung, box, spec), spec, runtime, progress or (lambda done, count: None))
    return ScalarMap(
        values=on_grid(changes.transpose(2, 1, 0), lattice, volume.grid, box),
        grid=volume.grid,
        quantity=f"fall of the probability of {spec.labels[spec.saliency.label]} when hidden",
        unit=UNIT,
        uid=volume.uid,
        made_by=bundle.made_by,
    )


def blocks_of(spec: Covid) -> tuple[int, int, int]:
    """How many blocks are hidden along ``(x, y, z)``: those of the bundle, at most one a voxel."""
    x, y, z = (min(count, side) for count, side in zip(spec.saliency.blocks, spec.size, strict=True))
    return (x, y, z)


def _changes(
    image: Floats, fill: float, spec: Covid, runtime: Runtime, progress: Callable[[int, int], None]
) -> npt.NDArray[np.float64]:
    """Probability as it is minus probability with a block hidden, for each block ``(x, y, z)``.

    A network that fails on several inputs at once (exported for a batch of one) is given one after the other.
    """
    try:
        return _changes_in_batches(image, fill, spec, runtime, progress)
    except ModelFailed:
        if spec.saliency.batch == 1:
            raise
        alone = msgspec.structs.replace(spec, saliency=msgspec.structs.replace(spec.saliency, batch=1))
        return _changes_in_batches(image, fill, alone, runtime, progress)


def _changes_in_batches(
    image: Floats, fill: float, spec: Covid, runtime: Runtime, progress: Callable[[int, int], None]
) -> npt.NDArray[np.float64]:
    label, blocks, batch = spec.saliency.label, blocks_of(spec), spec.saliency.batch
    count = int(np.prod(blocks))
    whole = probabilities(image[None, None], spec, runtime)[0, label]
    progress(1, count + 1)
    hidden = np.empty(count)
    for numbers in _batches(count, batch):
        weights = block_weights(image.shape, blocks, numbers)
        images = image + weights * (np.float32(fill) - image)
        hidden[numbers] = probabilities(images[:, None], spec, runtime)[:, label]
        progress(int(numbers[-1]) + 2, count + 1)
    changes: npt.NDArray[np.float64] = (whole - hidden).reshape(blocks)
    return changes


def _batches(count: int, batch: int) -> Iterator[npt.NDArray[np.intp]]:
    """The numbers of ``count`` blocks, ``batch`` at a time; the last is filled up, for runtimes compile a shape."""
    batch = min(batch, count)
    for start in range(0, count, batch):
        yield np.minimum(np.arange(start, start + batch), count - 1)


def block_weights(shape: tuple[int, ...], blocks: tuple[int, int, int], numbers: npt.NDArray[np.intp]) -> Floats:
    """How strongly each voxel belongs to the numbered blocks, ``(n, x, y, z)``, 0 to 1; all blocks add up to 1."""
    x, y, z = (_axis_weights(size, count) for size, count in zip(shape, blocks, strict=True))
    i, j, k = np.unravel_index(numbers, blocks)
    return np.asarray(x[i][:, :, None, None] * y[j][:, None, :, None] * z[k][:, None, None, :], dtype=np.float32)


def _axis_weights(size: int, count: int) -> Floats:
    """``(count, size)``: a plateau over each part, ramps of half its width centred on its ends; none at the faces."""
    width = size / count
    away = np.arange(size) + 0.5 - (np.arange(count)[:, None] + 0.5) * width
    away[0] = np.maximum(away[0], 0)
    away[-1] = np.minimum(away[-1], 0)
    return np.clip(0.5 + (width / 2 - np.abs(away)) / (width / 2), 0, 1).astype(np.float32)


def _aerated(volume: Volume, lung: Mask, box: Box, spec: Covid) -> float:
    """Aerated lung of this scan as the network sees it, 0 to 1."""
    step = max(1, round((np.prod(lung.labels[box].shape) / SEEN_VOXELS) ** (1 / 3)))
    part = tuple(slice(one.start, one.stop, step) for one in box)
    inside = volume.hu[part][lung.labels[part] > 0]
    if not inside.size:
        inside = volume.hu[lung.labels > 0]
    low, high = spec.window_hu
    return float(np.clip((np.percentile(inside, AERATED_PERCENTILE) - low) / (high - low), 0, 1))


def on_grid(changes: npt.NDArray[np.float64], lattice: Grid, grid: Grid, box: Box) -> Floats:
    """Values of the blocks of ``lattice`` ``(z, y, x)`` on the volume's grid, 0 outside ``box``."""
    values = np.zeros(grid.shape, dtype=np.float32)
    inside, target, scale = values[box], cropped(grid, box), np.float32(2**DIGITS_BITS)

    def store(index: int, plane: Floats) -> None:
        scaled = plane * scale
        np.divide(np.rint(scaled, out=scaled), scale, out=inside[index])

    if parallel(lattice, target):
        each_slice(changes, lattice, target, store)
    else:
        for index, plane in enumerate(resample(changes, lattice, target)):
            store(index, plane)
    return values
