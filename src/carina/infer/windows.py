"""The tile plan: which windows of the network grid the network sees, and how their scores are put together.

Everything here is in array order ``(z, y, x)``; a bundle's patches are ``(x, y, z)`` and are turned round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carina.models.bundle import Blending, Windows
from carina.volume.resample import Box

Triplet = tuple[int, int, int]

GAUSSIAN_WIDTH = 0.125
"""Standard deviation of the Gaussian blending weights, as a share of the window's side (as MONAI's)."""

GAUSSIAN_LEAST = 1e-3
"""The least weight, in a window's corners (as MONAI's)."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Windows of one ``size`` over a ``box`` of the network grid.

    ``starts`` are the first voxels along each axis, counted from the box's corner. The box may reach beyond the grid:
    what lies outside is padding.
    """

    box: Box
    size: Triplet
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    blending: Blending

    def __len__(self) -> int:
        return math.prod(len(axis) for axis in self.starts)

    def __iter__(self) -> Iterator[Box]:
        for z, y, x in itertools.product(*self.starts):
            yield (slice(z, z + self.size[0]), slice(y, y + self.size[1]), slice(x, x + self.size[2]))


def published_tiles(box: Box, windows: Windows) -> Tiles:
    """The bundle's own windows and overlap over ``box``, placed as MONAI's ``sliding_window_inference`` places them.

    A box smaller than a window is padded evenly on both sides.
    """
    size = _reversed(windows.patch)
    padded, starts = [], []
    for part, side in zip(box, size, strict=True):
        length = part.stop - part.start
        before = max(side - length, 0) // 2
        total = max(length, side)
        padded.append(slice(part.start - before, part.start - before + total))
        step = side if total == side else max(int(side * (1 - windows.overlap)), 1)
        count = math.ceil((total - side) / step) + 1
        starts.append(tuple(min(k * step, total - side) for k in range(count)))
    return Tiles(
        box=(padded[0], padded[1], padded[2]),
        size=size,
        starts=(starts[0], starts[1], starts[2]),
        blending=windows.blending,
    )


def reaching_tiles(box: Box, shape: Triplet, windows: Windows, overlap: float | None = None) -> Tiles:
    """Those of the published windows over the whole grid of ``shape`` that reach into ``box``.

    Inside the box every voxel gets the scores that the whole volume's windows would give it. With an ``overlap`` (a
    share of the patch), only as few of them as cover the box and overlap that much: where a network's answer depends
    on what else a window shows, windows of the same lattice agree best.
    """
    z, y, x = (slice(0, size) for size in shape)
    whole = published_tiles((z, y, x), windows)
    parts, starts = [], []
    for part, padded, side, axis in zip(box, whole.box, whole.size, whole.starts, strict=True):
        reaching = [s for s in axis if s + padded.start < part.stop and s + padded.start + side > part.start]
        if overlap is not None:
            reaching = _thinned(reaching, part.start - padded.start, part.stop - padded.start, (side, overlap))
        parts.append(slice(padded.start + reaching[0], padded.start + reaching[-1] + side))
        starts.append(tuple(s - reaching[0] for s in reaching))
    return Tiles(
        box=(parts[0], parts[1], parts[2]),
        size=whole.size,
        starts=(starts[0], starts[1], starts[2]),
        blending=whole.blending,
    )


def _thinned(starts: list[int], low: int, high: int, window: tuple[int, float]) -> list[int]:
    """As few of ``starts`` as cover ``low`` to ``high`` with windows of one side and overlap."""
    side, overlap = window
    step = int(side * (1 - overlap))
    chosen = [max((s for s in starts if s <= low), default=starts[0])]
    while chosen[-1] + side < high and chosen[-1] < starts[-1]:
        later = [s for s in starts if s > chosen[-1]]
        near = [s for s in later if s <= chosen[-1] + step] or later[:1]
        chosen.append(min((s for s in near if s + side >= high), default=near[-1]))
    return chosen


def fewest_tiles(box: Box, shape: Triplet, windows: Windows, divisor: int) -> Tiles:
    """As few windows as cover ``box`` with at least the wanted overlap, of the patch's size or less where less will do.

    What rounding up to the divisor leaves over widens the box evenly, inside the grid of ``shape`` where it can.
    """
    parts, size, starts = [], [], []
    for part, limit, patch in zip(box, shape, _reversed(windows.patch), strict=True):
        length = part.stop - part.start
        overlap = int(patch * windows.overlap)
        count = max(1, math.ceil((length - overlap) / (patch - overlap)))
        side = min(patch, divisor * math.ceil((length + (count - 1) * overlap) / count / divisor))
        total = min(max(length, count * side - (count - 1) * overlap), max(limit, length, side))
        start = part.start - (total - length) // 2
        start = max(0, min(start, limit - total)) if total <= limit else (limit - total) // 2
        parts.append(slice(start, start + total))
        size.append(side)
        starts.append(tuple(round(k * (total - side) / max(count - 1, 1)) for k in range(count)))
    return Tiles(
        box=(parts[0], parts[1], parts[2]),
        size=(size[0], size[1], size[2]),
        starts=(starts[0], starts[1], starts[2]),
        blending=windows.blending,
    )


def predict(
    image: npt.NDArray[np.float32],
    tiles: Tiles,
    score: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Scores ``(channels, z, y, x)`` of ``image``, which fills the tiles' box: the weighted mean over the windows.

    ``score`` takes one window in the networks' order ``(x, y, z)`` and gives ``(channels, x, y, z)``;
    ``progress(done, all)`` counts windows. Everything is summed in the networks' order: turning the whole round once
    is cheaper than turning every window.
    """
    turned = np.ascontiguousarray(image.T)
    weight = None if tiles.blending is Blending.CONSTANT else _weight(tiles)
    summed = np.zeros(turned.shape, dtype=np.float32)
    total: npt.NDArray[np.float32] | None = None
    for done, (z, y, x) in enumerate(tiles, start=1):
        scores = score(turned[x, y, z])
        if len(tiles) == 1:
            total = scores
        else:
            if total is None:
                total = np.zeros((len(scores), *turned.shape), dtype=np.float32)
            total[:, x, y, z] += scores if weight is None else scores * weight
            summed[x, y, z] += 1 if weight is None else weight
        if progress:
            progress(done, len(tiles))
    assert total is not None
    if len(tiles) > 1:
        total /= summed
    return np.ascontiguousarray(total.transpose(0, 3, 2, 1))


def _weight(tiles: Tiles) -> npt.NDArray[np.float32]:
    """How much each voxel ``(x, y, z)`` of a window counts, in Gaussian blending."""
    z, y, x = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (GAUSSIAN_WIDTH * side)) ** 2) for side in tiles.size
    )
    weight: npt.NDArray[np.float32] = np.maximum(x[:, None, None] * y[:, None] * z, GAUSSIAN_LEAST, dtype=np.float32)
    return weight


def _reversed(patch: Triplet) -> Triplet:
    return (patch[2], patch[1], patch[0])
