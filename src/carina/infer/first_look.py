"""The first of two looks at the lungs: a small network sees the whole scan at 6 mm or so, in one pass.

It knows where thorax and belly are, which no window of 5 mm slices shows, and what is lung without air. Its surface is
not sharp, so the second look, at full resolution, decides within `FirstLook.sure_mm` of it. Where lung is dense, the
second look has nothing to see the border by, and the surface of the first is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.infer.components import kept
from carina.infer.runtime import Runtime
from carina.infer.windows import UNSEEN
from carina.models.bundle import Bundle, Lung
from carina.volume.arrays import Box, Flags, Floats
from carina.volume.average import averaged
from carina.volume.grid import Grid
from carina.volume.resample import reorient, resample, respaced
from carina.volume.volume import Volume

AIRLESS_ABOVE_HU = -250.0
"""Voxels of the first look above this hold no air worth mentioning; vessels are thinner than what is averaged."""

CERTAIN_SCORE = 8.0
"""The score of what is lung beyond doubt, e^-8 being the doubt."""


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
        parts = ndimage.find_objects((self.depth_mm > -self.sure_mm).view(np.uint8))
        z, y, x = parts[0]
        return z, y, x

    def settle(self, scores: Floats, grid: Grid) -> None:
        """Let the first look decide in ``scores`` of the second (logits on ``grid``) what it is sure of, in place."""
        depth = resample(self.depth_mm, self.grid, grid)
        if self.dense.any():
            near = resample(self.near_dense, self.grid, grid, 0) > 0
            np.copyto(scores, resample(self.scores, self.grid, grid), where=near)
        np.maximum(scores, CERTAIN_SCORE, out=scores, where=depth > self.sure_mm)
        scores[depth < -self.sure_mm] = UNSEEN


def look_first(volume: Volume, bundle: Bundle, runtime: Runtime, sure_mm: float) -> LungsSeen:
    """One pass of the first look's network over the whole of ``volume``.

    Raises:
        ValueError: the bundle's task is not ``lung``.
        ModelFailed: the network failed.
    """
    spec = bundle.carina
    if not isinstance(spec, Lung):
        raise ValueError(f"bundle {bundle.name} finds no lungs, its task is {spec.task}")
    x, y, z = spec.spacing_mm
    means, fine = averaged(*reorient(volume.hu, volume.grid, spec.orientation), (z, y, x))
    grid = respaced(fine, (z, y, x))
    hu = resample(means, fine, grid)
    low, high = spec.window_hu
    image = np.clip((hu - low) / np.float32(high - low), 0, 1).astype(np.float32)
    sides: list[tuple[int, int]] = [(0, -n % d) for n, d in zip(hu.shape, reversed(spec.divisors), strict=True)]
    answer: npt.NDArray[Any] = runtime(np.pad(image, sides)[None, None].transpose(0, 1, 4, 3, 2))[0, 0]
    scores = np.ascontiguousarray(answer.transpose(2, 1, 0)[tuple(slice(0, n) for n in hu.shape)])
    lung = scores > 0
    scores[lung & ~kept(lung, spec.components)] = UNSEEN
    dense = ndimage.binary_opening((scores > 0) & (hu > AIRLESS_ABOVE_HU))
    return LungsSeen(grid=grid, scores=scores, dense=dense, sure_mm=sure_mm)
