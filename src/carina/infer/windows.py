"""The plan: which windows of the network grid the network sees, and how their scores are put together.

Everything here is in array order ``(z, y, x)``; a bundle's patches are ``(x, y, z)`` and are turned round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.infer.mosaic import Mosaic, beyond_rim
from carina.models.bundle import Blending, Windows
from carina.volume.arrays import Box, Floats

Triplet = tuple[int, int, int]

GAUSSIAN_WIDTH = 0.125
"""Standard deviation of the Gaussian blending weights, as a share of the window's side (as MONAI's)."""

GAUSSIAN_LEAST = 1e-3
"""The least weight, in a window's corners (as MONAI's)."""

UNSEEN = -30.0
"""The logit of a voxel that no window has seen."""

STRIDE = 4
"""Doubt is counted on every fourth voxel along x and y."""

PASS_VOXELS = 13_000_000
"""Voxels of one window of a network whose answers are local: what bounds the memory of a pass."""

MOST_PIECES = 12
"""Windows of such a network along one axis."""

LEAST_DOUBT = 10.0
"""Counted voxels' worth of doubt below which a window is never run (about half a millilitre at 0.8 x 0.8 x 5 mm)."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Windows of one ``size`` over a ``box`` of the network grid.

    ``starts`` are the first voxels along each axis, counted from the box's corner. The box may reach beyond the grid:
    what lies outside is padding. ``wanted``, counted likewise, is the part that must be seen; None is all of it. With
    a ``rim``, a window's answers count from that far inside its faces on, but for faces of the box; what lies outside
    ``wanted`` is there to be looked at only. Without, windows are averaged.
    """

    box: Box
    size: Triplet
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    blending: Blending
    wanted: Box | None = None
    rim: Triplet | None = None

    @property
    def answered(self) -> Box:
        """The part of the network grid whose answers are kept: the box, or what is wanted of it where that is all."""
        if self.rim is None or self.wanted is None:
            return self.box
        return _moved(self.wanted, [part.start for part in self.box])

    @property
    def counted(self) -> Box:
        """What counts of any window where there is a rim, in voxels of a window: the rest is looked at only."""
        parts = []
        wanted = self.wanted or [slice(0, part.stop - part.start) for part in self.box]
        for part, side, starts, rim, own in zip(
            self.box, self.size, self.starts, self.rim or (0, 0, 0), wanted, strict=True
        ):
            inside = [beyond_rim(start, side, part.stop - part.start, rim) for start in starts]
            first = min(max(low, own.start) - start for (low, _), start in zip(inside, starts, strict=True))
            last = max(min(high, own.stop) - start for (_, high), start in zip(inside, starts, strict=True))
            parts.append(slice(max(first, 0), last))
        return (parts[0], parts[1], parts[2])

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
    parts, starts, wanted = [], [], []
    for part, padded, side, axis in zip(box, whole.box, whole.size, whole.starts, strict=True):
        reaching = [s for s in axis if s + padded.start < part.stop and s + padded.start + side > part.start]
        if overlap is not None:
            reaching = _thinned(reaching, part.start - padded.start, part.stop - padded.start, (side, overlap))
        parts.append(slice(padded.start + reaching[0], padded.start + reaching[-1] + side))
        starts.append(tuple(s - reaching[0] for s in reaching))
        wanted.append(slice(max(part.start - parts[-1].start, 0), min(part.stop, parts[-1].stop) - parts[-1].start))
    return Tiles(
        box=(parts[0], parts[1], parts[2]),
        size=whole.size,
        starts=(starts[0], starts[1], starts[2]),
        blending=whole.blending,
        wanted=(wanted[0], wanted[1], wanted[2]),
    )


def _thinned(starts: list[int], low: int, high: int, window: tuple[int, float]) -> list[int]:
    """As few of ``starts`` as cover ``low`` to ``high`` with windows of one side and overlap."""
    side, overlap = window
    step = int(side * (1 - overlap))
    chosen = [max((s for s in starts if s <= low), default=starts[0])]
    while chosen[-1] + side < high and chosen[-1] < starts[-1]:
        chosen.append(_next(starts, chosen[-1], step, high - side))
    return chosen


def _next(starts: list[int], last: int, step: int, enough: int) -> int:
    """The start after ``last``: the first within ``step`` that reaches ``enough``, else the furthest within it."""
    later = [s for s in starts if s > last]
    near = [s for s in later if s <= last + step] or later[:1]
    return min((s for s in near if s >= enough), default=near[-1])


def fewest_tiles(box: Box, shape: Triplet, windows: Windows, divisors: Triplet) -> Tiles:
    """As few windows as cover ``box`` with at least the wanted overlap, of the patch's size or less where less will do.

    ``divisors`` are the network's, ``(x, y, z)``. What rounding up to them leaves over widens the box evenly, inside
    the grid of ``shape`` where it can.
    """
    parts, size, starts = [], [], []
    sides = zip(box, shape, _reversed(windows.patch), _reversed(divisors), strict=True)
    for part, limit, patch, divisor in sides:
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


def local_tiles(box: Box, shape: Triplet, reach: Triplet, divisors: Triplet, *, most: int = PASS_VOXELS) -> Tiles:
    """As few windows of ``most`` voxels at most as answer for all of ``box``, each with all around it that has a say.

    For networks whose answer at a voxel depends on what lies within ``reach`` of it ``(x, y, z)``, and on nothing else.
    The box is widened by the reach inside the grid of ``shape``; every window begins at a multiple of ``divisors``
    ``(x, y, z)`` from the grid's first voxel, so that the network's coarser maps lie alike in all of them, and beyond
    the grid's end zeros fill up to the next multiple. A window may be larger than ``most`` where a smaller one would
    have no voxel to answer for.
    """
    axes = [
        _Span(max(part.start - far, 0) // step * step, _up(min(part.stop + far, size), step), _up(far, step), step)
        for part, size, far, step in zip(box, shape, _reversed(reach), _reversed(divisors), strict=True)
    ]
    choices: Iterator[tuple[int, ...]] = itertools.product(
        *([n for n in range(1, MOST_PIECES + 1) if span.can_be(n)] for span in axes)
    )

    def cost(pieces: tuple[int, ...]) -> tuple[int, int]:
        voxels = math.prod(span.side(n) for span, n in zip(axes, pieces, strict=True))
        return max(voxels - most, 0), voxels * math.prod(pieces)

    counts = min(choices, key=cost)
    z, y, x = ((span, n) for span, n in zip(axes, counts, strict=True))
    return Tiles(
        box=(slice(z[0].low, z[0].high), slice(y[0].low, y[0].high), slice(x[0].low, x[0].high)),
        size=(z[0].side(z[1]), y[0].side(y[1]), x[0].side(x[1])),
        starts=(z[0].starts(z[1]), y[0].starts(y[1]), x[0].starts(x[1])),
        blending=Blending.CONSTANT,
        wanted=_moved(box, [-span.low for span in axes]),
        rim=(z[0].rim, y[0].rim, x[0].rim),
    )


@dataclass(frozen=True)
class _Span:
    """One axis of a box with all around it that has a say: ``low`` to ``high``, multiples of ``step`` as ``rim`` is."""

    low: int
    high: int
    rim: int
    step: int

    def side(self, count: int) -> int:
        """Of ``count`` windows that overlap by two rims, at least."""
        return _up(math.ceil((self.high - self.low + (count - 1) * 2 * self.rim) / count), self.step)

    def can_be(self, count: int) -> bool:
        """Whether each of ``count`` windows has voxels of its own to answer for."""
        return count == 1 or self.side(count) > 2 * self.rim

    def starts(self, count: int) -> tuple[int, ...]:
        side = self.side(count)
        return tuple(min(k * (side - 2 * self.rim), self.high - self.low - side) for k in range(count))


def _up(size: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-size // step) * step


def _moved(box: Box, by: Sequence[int]) -> Box:
    z, y, x = (slice(part.start + far, part.stop + far) for part, far in zip(box, by, strict=True))
    return (z, y, x)


def predict(
    image: npt.NDArray[np.float32],
    tiles: Tiles,
    score: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
    progress: Callable[[int, int], None] | None = None,
    *,
    doubt: float | None = None,
) -> npt.NDArray[np.float32]:
    """Scores ``(channels, z, y, x)`` of ``image``, which fills the tiles' box: the weighted mean over the windows.

    Where the tiles have a rim, each voxel's score is that of the one window that answers for it.

    ``score`` takes one window in the networks' order ``(x, y, z)`` and gives ``(channels, x, y, z)``;
    ``progress(done, all)`` counts windows. With ``doubt``, for one channel of logits, windows end where the rest would
    hardly change a decision (`_choices`), and a voxel that no window has seen scores `UNSEEN`; without it every window
    is run. Everything is summed in the networks' order: turning the whole round once is cheaper than every window.
    """
    turned = np.ascontiguousarray(image.T)
    del image  # the caller may have no name for it
    blend: _Blend | Mosaic
    if tiles.rim is not None:
        blend = Mosaic(turned.shape, tiles.rim, tiles.counted, UNSEEN)
    else:
        blend = _Blend(turned.shape, None if tiles.blending is Blending.CONSTANT else _weight(tiles))
    done = 0
    chosen = iter(tiles) if doubt is None or isinstance(blend, Mosaic) else _choices(tiles, blend, doubt)
    for done, window in enumerate(chosen, start=1):
        blend.look(window, turned, score)
        if progress:
            progress(done, len(tiles))
    if progress and done < len(tiles):
        progress(len(tiles), len(tiles))
    return np.ascontiguousarray(blend.mean().transpose(0, 3, 2, 1))


class _Blend:
    """Scores summed over windows, in the networks' order: ``total`` is ``(channels, x, y, z)``.

    ``summed`` are the weights, counts where all weigh alike.
    """

    def __init__(self, shape: tuple[int, ...], weight: npt.NDArray[np.float32] | None) -> None:
        self.shape, self.weight = shape, weight
        self.total: npt.NDArray[np.float32] = np.zeros((0, *shape), dtype=np.float32)
        self.summed: npt.NDArray[Any] = np.zeros(shape, dtype=np.uint16 if weight is None else np.float32)

    def look(self, window: Box, image: Floats, score: Callable[[Floats], Floats]) -> None:
        """Add the scores of a window of ``image``, which is ``(x, y, z)``."""
        z, y, x = window
        scores = score(image[x, y, z])
        if not len(self.total):
            self.total = np.zeros((len(scores), *self.shape), dtype=np.float32)
        self.total[:, x, y, z] += scores if self.weight is None else scores * self.weight
        self.summed[x, y, z] += 1 if self.weight is None else self.weight

    def mean(self) -> npt.NDArray[np.float32]:
        """The weighted mean of each voxel's scores."""
        unseen = self.summed == 0
        if unseen.any():
            self.summed[unseen] = 1
            self.total[:, unseen] = UNSEEN
        self.total /= self.summed
        return self.total


def _choices(tiles: Tiles, blend: _Blend, doubt: float) -> Iterator[Box]:
    """First as few windows as cover what is wanted, then always the one that covers most doubt, while that is worth it.

    A voxel's doubt, 0 to 1, is ``exp(-|sum of its logits| / 2)``: windows differ by a few logits, so the further the
    sum is from 0, the less likely another one turns it. A window is not worth its time any more where the doubt in it
    is less than the share ``doubt`` of what has been found in the whole box; voxels that none has seen hold no doubt.
    Counted on every `STRIDE`-th voxel of the plane.
    """
    wanted = tiles.wanted or [slice(0, part.stop - part.start) for part in tiles.box]
    first = [
        _thinned(list(starts), part.start, part.stop, (side, 0.0))
        for starts, part, side in zip(tiles.starts, wanted, tiles.size, strict=True)
    ]
    left = []
    for window in tiles:
        if all(part.start in chosen for part, chosen in zip(window, first, strict=True)):
            yield window
        else:
            left.append(window)
    while left:
        sums = blend.total[0, ::STRIDE, ::STRIDE]
        doubts = np.exp(np.abs(sums) * -0.5) * (blend.summed[::STRIDE, ::STRIDE] > 0)
        worth = [float(doubts[_every(x), _every(y), z].sum()) for z, y, x in left]
        best = int(np.argmax(worth))
        if worth[best] < max(doubt * np.count_nonzero(sums > 0), LEAST_DOUBT):
            return
        yield left.pop(best)


def _every(part: slice) -> slice:
    """The places of ``part`` on every `STRIDE`-th voxel."""
    return slice(-(-part.start // STRIDE), -(-part.stop // STRIDE))


def _weight(tiles: Tiles) -> npt.NDArray[np.float32]:
    """How much each voxel ``(x, y, z)`` of a window counts, in Gaussian blending."""
    z, y, x = (
        np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (GAUSSIAN_WIDTH * side)) ** 2) for side in tiles.size
    )
    weight: npt.NDArray[np.float32] = np.maximum(x[:, None, None] * y[:, None] * z, GAUSSIAN_LEAST, dtype=np.float32)
    return weight


def _reversed(patch: Triplet) -> Triplet:
    return (patch[2], patch[1], patch[0])
