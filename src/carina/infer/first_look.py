"""The first of two looks: a small network sees the whole scan at a few millimetres, in one pass.

It knows where in a body a place is, which no window of 5 mm slices shows: what is thorax and what belly, lung without
air and heart, consolidation and hilum. Its surface is not sharp. For lungs the second look, at full resolution, decides
within `LungLook.sure_mm` of it; where lung is dense, the second look has nothing to see the border by, and the surface
of the first is taken. For lesions the first look adds what it is sure of to what the second finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.infer.breath import Breath
from carina.infer.components import kept
from carina.infer.runtime import Runtime
from carina.infer.windows import UNSEEN
from carina.models.bundle import Bundle, Lesion, Lung, Segmentation
from carina.models.looking import LesionLook, LungLook
from carina.volume.arrays import Box, Flags, Floats, marked_box
from carina.volume.average import averaged
from carina.volume.grid import Grid
from carina.volume.resample import reorient, resample, respaced
from carina.volume.volume import Volume

AIRLESS_ABOVE_HU = -250.0
"""Voxels of the first look above this hold no air worth mentioning; vessels are thinner than what is averaged."""

CERTAIN_SCORE = 8.0
"""The score of what is lung beyond doubt, e^-8 being the doubt."""


class LookSeen(Protocol):
    """What a first look saw, on its coarse grid."""

    @property
    def grid(self) -> Grid:
        """The coarse grid."""

    @property
    def is_empty(self) -> bool:
        """Whether it saw nothing."""

    def box(self) -> Box:
        """The coarse voxels where it saw something, or may have; there must be some."""

    def settle(self, scores: Floats, grid: Grid) -> None:
        """Let the first look decide in ``scores`` of the second (logits on ``grid``) what it is sure of, in place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LungsSeen:
    """What the first look saw: the lungs' score (above 0: lung) on a coarse grid, and where that lung is dense."""

    grid: Grid
    scores: Floats
    dense: Flags
    sure_mm: float

    @property
    def is_empty(self) -> bool:
        """Whether no lung was seen."""
        return not bool((self.scores > 0).any())

    @cached_property
    def depth_mm(self) -> Floats:
        """How deep inside the lungs each coarse voxel lies; negative outside."""
        lung = self.scores > 0
        inside, outside = (
            np.asarray(ndimage.distance_transform_edt(np.pad(part, 1, mode="edge"), sampling=self.grid.spacing_mm))
            for part in (lung, ~lung)
        )
        half = min(self.grid.spacing_mm) / 2
        depth = np.where(np.pad(lung, 1, mode="edge"), inside - half, half - outside)
        return depth[1:-1, 1:-1, 1:-1].astype(np.float32)

    @cached_property
    def near_dense(self) -> npt.NDArray[np.uint8]:
        """Where the surface of the first look counts: within ``sure_mm`` and a voxel of dense lung."""
        if not self.dense.any():
            return np.zeros(self.grid.shape, dtype=np.uint8)
        far = ndimage.distance_transform_edt(~self.dense, sampling=self.grid.spacing_mm)
        return (far <= self.sure_mm + max(self.grid.spacing_mm)).astype(np.uint8)

    def box(self) -> Box:
        """The coarse voxels that may be lung; some voxel must be."""
        return marked_box(self.depth_mm > -self.sure_mm)

    def settle(self, scores: Floats, grid: Grid) -> None:
        """Let the first look decide in ``scores`` of the second (logits on ``grid``) what it is sure of, in place."""
        depth = resample(self.depth_mm, self.grid, grid)
        if self.dense.any():
            near = resample(self.near_dense, self.grid, grid, 0) > 0
            np.copyto(scores, resample(self.scores, self.grid, grid), where=near)
        np.maximum(scores, CERTAIN_SCORE, out=scores, where=depth > self.sure_mm)
        scores[depth < -self.sure_mm] = UNSEEN


@dataclass(frozen=True, kw_only=True, eq=False)
class LesionsSeen:
    """What the first look saw of lesions: a score on a coarse grid, and above which it is sure (`LesionLook`)."""

    grid: Grid
    scores: Floats
    sure: float

    @property
    def is_empty(self) -> bool:
        """Whether it is sure of no place."""
        return not bool((self.scores > self.sure).any())

    def box(self) -> Box:
        """The coarse voxels that it is sure of and one around them; some voxel must be."""
        return marked_box(self.scores > self.sure, 1)

    def settle(self, scores: Floats, grid: Grid) -> None:
        """Raise ``scores`` of the second look (logits on ``grid``) where the first is sure, in place."""
        if self.is_empty:
            return
        np.maximum(scores, resample(self.scores, self.grid, grid) - np.float32(self.sure), out=scores)


def look_first(
    volume: Volume, bundle: Bundle, runtime: Runtime, look: LungLook | LesionLook, breath: Breath | None = None
) -> LookSeen:
    """One pass of the first look's network over the whole of ``volume``, read by what the second one's bundle says.

    ``breath`` deepens what it sees.

    Raises:
        ValueError: the bundle's task is another than that of ``look``.
        ModelFailed: the network failed.
    """
    spec = bundle.carina
    if not isinstance(spec, Lung if isinstance(look, LungLook) else Lesion):
        raise ValueError(f"bundle {bundle.name} is no first look for this, its task is {spec.task}")
    hu, grid = _coarse(volume, spec)
    if breath:
        breath.deepen(hu, grid)
    scores = _scores(hu, spec, runtime)
    if isinstance(look, LesionLook):
        return LesionsSeen(grid=grid, scores=scores, sure=look.sure)
    lung = scores > 0
    scores[lung & ~kept(lung, spec.components)] = UNSEEN
    dense = ndimage.binary_opening((scores > 0) & (hu > AIRLESS_ABOVE_HU))
    return LungsSeen(grid=grid, scores=scores, dense=dense, sure_mm=look.sure_mm)


def _coarse(volume: Volume, spec: Segmentation) -> tuple[Floats, Grid]:
    """HU averaged to the voxels of a first look."""
    x, y, z = spec.spacing_mm
    means, fine = averaged(*reorient(volume.hu, volume.grid, spec.orientation), (z, y, x))
    grid = respaced(fine, (z, y, x))
    return resample(means, fine, grid), grid


def _scores(hu: Floats, spec: Segmentation, runtime: Runtime) -> Floats:
    """The network's answer for a whole scan, ``(z, y, x)``."""
    low, high = spec.window_hu
    image = np.clip((hu - low) / np.float32(high - low), 0, 1).astype(np.float32)
    sides: list[tuple[int, int]] = [(0, -n % d) for n, d in zip(hu.shape, reversed(spec.divisors), strict=True)]
    answer: npt.NDArray[Any] = runtime(np.pad(image, sides)[None, None].transpose(0, 1, 4, 3, 2))[0, 0]
    return np.ascontiguousarray(answer.transpose(2, 1, 0)[tuple(slice(0, n) for n in hu.shape)])
