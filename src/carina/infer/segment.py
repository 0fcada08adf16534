"""Segmentation: a volume and a bundle in, a mask on the volume's grid out.

The network sees a grid of its own (orientation and spacing of the bundle); only the part of it that the plan asks for
is ever sampled, and one channel of the result goes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from carina.config import Plan
from carina.infer.border import border_moved
from carina.infer.breath import Breath, breath_of
from carina.infer.components import found_box, kept
from carina.infer.first_look import LookSeen, LungsSeen, look_first
from carina.infer.mosaic import PartScore
from carina.infer.regions import Regions, regions_of
from carina.infer.runtime import Runtime, has_two_logits, open_runtime, scores_within
from carina.infer.windows import UNSEEN, Tiles, fewest_tiles, local_tiles, predict, published_tiles, reaching_tiles
from carina.models.bundle import Bundle, Lesion, Lung, NetworkOutput, Restore, Segmentation
from carina.models.first_look import first_look_of
from carina.models.lung_rules import Border
from carina.volume.arrays import Box
from carina.volume.grid import Grid
from carina.volume.resample import above, cropped, reoriented, resample, respaced
from carina.volume.volume import Mask, Volume

WindowProgress = Callable[[int, int], None]
"""Told how many windows are done, and of how many."""

_Labels = TypeVar("_Labels", npt.NDArray[np.uint8], npt.NDArray[np.bool_])

MARGIN_MM = 10.0
"""Added around the lungs' box on every side, at least."""

GROWTH_MM = 40.0
"""Added to each face of the box at which something was found."""

GROWTHS = 2
"""How many times the box may grow."""

FACE_CM2 = 1.0
"""Found at a face: more than this."""

DOUBT = 0.015
"""The fast plan ends where no window left holds more doubt than this share of what was found (`windows`)."""


def segment(
    volume: Volume,
    bundle: Bundle,
    runtime: Runtime,
    plan: Plan = Plan.FAST,
    progress: WindowProgress | None = None,
    first_look: Runtime | None = None,
) -> Mask:
    """Segment ``volume`` with the bundle's network.

    ``Plan.FAST`` finds the lungs first and lets the network see only their box, through the bundle's fast windows;
    where it names none, through those of the published ones that can still change the mask (`DOUBT`). A network whose
    bundle gives a reach sees the box and as much around it, in as few passes as memory allows (`local_tiles`). What it
    finds around the body is dropped.
    ``Plan.ORIGINAL`` uses the bundle's own windows and overlap over the whole volume. Nothing found is an empty mask.
    A bundle that names a first look (`first_look`) lets it decide what it is sure of, in both plans: where lungs are at
    all, so that the fast one looks there alone; what is lesion. ``first_look`` is its network, opened here where it is
    not given.

    Raises:
        ValueError: the bundle's task is no segmentation.
        ModelFailed: the network failed.
    """
    spec = bundle.carina
    if not isinstance(spec, Lung | Lesion):
        raise ValueError(f"bundle {bundle.name} does not segment, its task is {spec.task}")
    x, y, z = spec.spacing_mm
    network = respaced(reoriented(volume.grid, spec.orientation), (z, y, x))
    look = _Look(volume, network, spec, runtime, DOUBT if plan is Plan.FAST and _can_doubt(bundle, spec) else None)
    if isinstance(spec, Lesion) and spec.clear_hu is not None:
        look = replace(look, breath=breath_of(volume, spec.orientation, spec.clear_hu))
    look = replace(look, seen=_first_look(volume, bundle, first_look, look.breath))
    if plan is Plan.FAST:
        found = _fast(look, progress)
    elif plan is Plan.ORIGINAL:
        found = _original(look, progress)
    else:
        assert_never(plan)
    labels = _restored(found, spec, volume.grid)
    if isinstance(spec, Lung) and spec.border:
        _settle_border(labels, volume, spec.border)
    return Mask(
        labels=labels,
        grid=volume.grid,
        names=spec.labels,
        uid=volume.uid,
        made_by=bundle.made_by,
    )


def _first_look(volume: Volume, bundle: Bundle, runtime: Runtime | None, breath: Breath | None) -> LookSeen | None:
    """What the first look that the bundle names sees in ``volume``; None where it names none."""
    first = first_look_of(bundle)
    spec = bundle.carina
    if first is None or not isinstance(spec, Lung | Lesion) or spec.first_look is None:
        return None
    return look_first(volume, first, runtime or open_runtime(first), spec.first_look, breath)


def _can_doubt(bundle: Bundle, spec: Segmentation) -> bool:
    """Whether windows of the bundle's network may be left out: one channel of logits, and no windows of its own."""
    return has_two_logits(bundle) and spec.threshold == 0.5 and spec.fast is None and spec.reach is None


def _fast(look: _Look, progress: WindowProgress | None) -> _Found:
    """What lies where a first look at lungs allows it; else in the lungs' box, or the body's where none are seen.

    What a first look at lesions is sure of lies in the box, too.
    """
    if isinstance(look.seen, LungsSeen):
        return look.at(_fast_tiles(_seen_box(look.seen, look.network), look), progress)
    oriented = reoriented(look.volume.grid, look.spec.orientation)
    regions = regions_of(look.volume, look.spec.orientation)
    body = _scaled(regions.body, oriented, look.network)
    box = _scaled(regions.lungs, oriented, look.network) if regions.lungs else body
    widened = _widened(box, body, look.network, [MARGIN_MM] * 6)
    if look.seen and not look.seen.is_empty:
        widened = _joined(widened, _clipped(_seen_box(look.seen, look.network), look.network.shape))
    return _grow(replace(look, regions=regions), widened, body, progress)


def _seen_box(seen: LookSeen, network: Grid) -> Box:
    """Where the first look saw anything, in voxels of the network grid; one voxel where it saw nothing."""
    if seen.is_empty:
        return (slice(0, 1), slice(0, 1), slice(0, 1))
    return _covered(cropped(seen.grid, seen.box()), network)


def _joined(one: Box, other: Box) -> Box:
    """The smallest box around both."""
    z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return z, y, x


def _original(look: _Look, progress: WindowProgress | None) -> _Found:
    """What lies in the whole volume, or in the body's box where the bundle crops to it."""
    box = _whole(look.network)
    if look.spec.crop_to_body:
        oriented = reoriented(look.volume.grid, look.spec.orientation)
        box = _scaled(regions_of(look.volume, look.spec.orientation).body, oriented, look.network)
    return look.at(published_tiles(box, look.spec.original), progress)


@dataclass(frozen=True)
class _Found:
    """What the network found on ``grid``, a part of the network grid.

    ``labels`` are finished; ``foreground`` is the logit or the probability (as the network gives it) of the one label,
    None where there are several.
    """

    grid: Grid
    labels: npt.NDArray[np.uint8]
    foreground: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class _Look:
    """A network's view of a volume: it can look at any windows of the network grid."""

    volume: Volume
    network: Grid
    spec: Segmentation
    runtime: Runtime
    doubt: float | None = None
    regions: Regions | None = None
    breath: Breath | None = None
    seen: LookSeen | None = None

    def at(self, tiles: Tiles, progress: WindowProgress | None) -> _Found:
        inside = _clipped(tiles.box, self.network.shape)
        answered = _clipped(tiles.answered, self.network.shape)
        padding = [(own.start - part.start, part.stop - own.stop) for own, part in zip(inside, tiles.box, strict=True)]
        scores = predict(self._image(inside, padding), tiles, PartScore(self._score), progress, doubt=self.doubt)
        kept_part = tuple(
            slice(part.start - box.start, part.stop - box.start) for part, box in zip(answered, tiles.box, strict=True)
        )
        return self._read(scores[(slice(None), *kept_part)], cropped(self.network, answered))

    def _image(self, inside: Box, padding: list[tuple[int, int]]) -> npt.NDArray[np.float32]:
        """A part of the network grid as the network sees it, 0 to 1, with zeros around it."""
        low, high = self.spec.window_hu
        part = cropped(self.network, inside)
        image = resample(self.volume.hu, self.volume.grid, part)
        if self.breath:
            self.breath.deepen(image, part)
        image -= low
        image /= high - low
        np.clip(image, 0, 1, out=image)
        return np.pad(image, padding) if any(sum(pair) for pair in padding) else image

    def _score(self, window: npt.NDArray[np.float32], part: Box) -> npt.NDArray[np.float32]:
        """The foreground of two probabilities in a part of a window; two logits come as one channel already."""
        scores: npt.NDArray[np.float32] = scores_within(self.runtime, np.ascontiguousarray(window)[None, None], part)[0]
        return scores[1:] if len(scores) == 2 else scores

    def _read(self, scores: npt.NDArray[np.float32], grid: Grid) -> _Found:
        if len(scores) > 1:
            labels = self._in_body(scores.argmax(axis=0).astype(np.uint8), grid)
            return _Found(grid, np.where(kept(labels > 0, self.spec.components), labels, 0).astype(np.uint8), None)
        foreground, threshold, nothing = scores[0], self.spec.threshold, 0.0
        if self.seen:
            self.seen.settle(foreground, grid)
        if self.spec.output is NetworkOutput.LOGITS:
            threshold, nothing = math.log(threshold / (1 - threshold)), UNSEEN
        mask = foreground > threshold
        wanted = kept(self._in_body(mask, grid), self.spec.components)
        if wanted is not mask:
            foreground[mask & ~wanted] = nothing
        mask = wanted
        return _Found(grid, mask.astype(np.uint8) * np.uint8(next(iter(self.spec.labels))), foreground)

    def _in_body(self, labels: _Labels, grid: Grid) -> _Labels:
        """``labels`` without what lies around the body: a network may take air beside an arm for lung, or the couch."""
        if self.regions is None or self.regions.around is None or self.regions.coarse is None:
            return labels
        box = found_box(labels)
        if box is None:
            return labels
        around = resample(self.regions.around.astype(np.uint8), self.regions.coarse, cropped(grid, box), 0) > 0
        if not labels[box][around].any():
            return labels
        inside = labels.copy()
        inside[box][around] = 0
        return inside


def _grow(look: _Look, box: Box, body: Box, progress: WindowProgress | None) -> _Found:
    """Look at ``box``; where something lies at a face of it, look again at a larger one."""
    for _ in range(GROWTHS):
        tiles = _fast_tiles(box, look)
        found = look.at(tiles, progress)
        seen = tiles.answered
        wider = _widened(seen, body, look.network, _growth(found.labels, found.grid))
        if all(a.start >= b.start and a.stop <= b.stop for a, b in zip(wider, seen, strict=True)):
            return found
        box = wider
    return look.at(_fast_tiles(box, look), progress)


def _fast_tiles(box: Box, look: _Look) -> Tiles:
    spec, shape = look.spec, look.network.shape
    if spec.reach is not None:
        return local_tiles(box, shape, spec.reach, spec.divisors)
    if spec.fast is None:
        return reaching_tiles(box, shape, spec.original)
    if spec.fast.patch == spec.original.patch:
        return reaching_tiles(box, shape, spec.original, spec.fast.overlap)
    return fewest_tiles(box, shape, spec.fast, spec.divisors)


def _growth(labels: npt.NDArray[np.uint8], grid: Grid) -> list[float]:
    """For each face (below and above along z, y, x), the mm that the box must grow."""
    growth = []
    for axis in range(3):
        area_cm2 = grid.voxel_ml * 10 / grid.spacing_mm[axis]
        for index in (0, -1):
            touched = np.count_nonzero(labels.take(index, axis=axis)) * area_cm2 > FACE_CM2
            growth.append(GROWTH_MM if touched else 0.0)
    return growth


def _widened(box: Box, body: Box, grid: Grid, margins_mm: list[float]) -> Box:
    """``box`` with a margin at each face, but not beyond the body's box (or its own face, where that lies beyond)."""
    parts = []
    for axis, (part, limit) in enumerate(zip(box, body, strict=True)):
        below, above_ = (math.ceil(mm / grid.spacing_mm[axis]) for mm in margins_mm[2 * axis : 2 * axis + 2])
        start = min(part.start, max(part.start - below, limit.start))
        stop = max(part.stop, min(part.stop + above_, limit.stop))
        parts.append(slice(start, stop))
    return (parts[0], parts[1], parts[2])


def _restored(found: _Found, spec: Segmentation, grid: Grid) -> npt.NDArray[np.uint8]:
    """Labels on the input grid, made only where something was found."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    box = found_box(found.labels)
    if box is None:
        return labels
    small = cropped(found.grid, box)
    place = _covered(small, grid)
    target = cropped(grid, place)
    if spec.restore is Restore.NEAREST or found.foreground is None:
        labels[place] = resample(found.labels[box], small, target, 0)
    else:
        foreground = found.foreground[box]
        if spec.output is NetworkOutput.LOGITS:
            foreground = (1 / (1 + np.exp(-np.clip(foreground, -30, 30)))).astype(np.float32)
        higher = above(foreground, small, target, spec.threshold)
        np.multiply(higher, np.uint8(next(iter(spec.labels))), out=labels[place])
    return labels


def _settle_border(labels: npt.NDArray[np.uint8], volume: Volume, rule: Border) -> None:
    """Move the border of the one label to where the air ends (`border`), in place."""
    box = found_box(labels)
    if box is None:
        return
    spacing = volume.grid.spacing_mm
    wide = tuple(
        slice(max(0, part.start - math.ceil(rule.reach_mm / side)), part.stop + math.ceil(rule.reach_mm / side))
        for part, side in zip(box, spacing, strict=True)
    )
    label = labels[wide].max()
    np.multiply(border_moved(labels[wide] > 0, volume.hu[wide], spacing, rule), label, out=labels[wide])


def _covered(part: Grid, grid: Grid) -> Box:
    """The voxels of ``grid`` that a part of another grid reaches, half a voxel of its own beyond its centres."""
    last = np.array(part.shape) - 1
    corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (last + 1) - 0.5
    indices = grid.indices(part.points_mm(corners))
    low = np.maximum(np.ceil(indices.min(axis=0) - 1e-6), 0).astype(int)
    high = np.minimum(np.floor(indices.max(axis=0) + 1e-6) + 1, grid.shape).astype(int)
    z, y, x = (slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
    return (z, y, x)


def _scaled(box: Box | None, source: Grid, target: Grid) -> Box:
    """The voxels of ``target`` (same corner, same axes) that hold a box of ``source``; all where there is none."""
    if box is None:
        return _whole(target)
    parts = []
    for axis, part in enumerate(box):
        ratio = source.spacing_mm[axis] / target.spacing_mm[axis]
        start = max(0, math.floor(part.start * ratio))
        parts.append(slice(start, max(start + 1, min(target.shape[axis], math.ceil((part.stop - 1) * ratio) + 1))))
    return (parts[0], parts[1], parts[2])


def _whole(grid: Grid) -> Box:
    z, y, x = (slice(0, size) for size in grid.shape)
    return (z, y, x)


def _clipped(box: Box, shape: tuple[int, int, int]) -> Box:
    z, y, x = (slice(max(part.start, 0), min(part.stop, size)) for part, size in zip(box, shape, strict=True))
    return (z, y, x)
