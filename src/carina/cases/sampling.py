"""A case sampled on other voxels: turned, stretched and bent in the axial plane, at other slices.

Arrays are ``(z, y, x)`` in RAS order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carina.synth import fields
from carina.volume import Mask
from carina.volume.arrays import Flags, Floats

Shape = tuple[int, int, int]


def bend(plane: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator) -> Floats:
    """By how many mm each place of a plane moves along y and x, ``(2, y, x)``: smooth, the same in all slices.

    ``plane`` and ``spacing_mm`` are ``(y, x)``. Bends are 30 to 80 mm wide and move by a fourteenth of that at most
    times, so that nothing folds over.
    """
    wide_mm = float(rng.uniform(30.0, 80.0))
    bent: Floats = rng.uniform(0, wide_mm / 28) * fields.noise((2, *plane), (1e3, *spacing_mm), wide_mm, rng)
    return bent


class Sampler:
    """Where other voxels lie in a case: slice ``k`` at ``first[0] + step * k``, turned in the plane by ``turn``.

    ``moved`` ``(2, y, x)`` moves each place of the plane further (`bend`), in voxels of the case.

    Linear sampling is done between slices first and in the plane then, on the rectangle that the voxels cover: the
    same for all slices, an order of magnitude faster than sampling in three dimensions.
    """

    def __init__(
        self,
        shape: Shape,
        extent: Sequence[int],
        first: npt.NDArray[np.float64],
        step: float,
        turn: npt.NDArray[np.float64],
        moved: Floats,
    ) -> None:
        self.shape, self.extent = shape, extent
        self.z = first[0] + step * np.arange(shape[0])
        grid = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij"))
        at = np.tensordot(turn, grid, axes=1) + first[1:, None, None] + moved
        last = np.array(extent[1:])[:, None, None] - 1
        self.inside: Flags = np.all((at >= 0) & (at <= last), axis=0)
        low = np.clip(np.floor(at), 0, np.maximum(last - 1, 0)).astype(np.intp)
        self.part = np.clip(at - low, 0, 1).astype(np.float32)
        start, stop = low.min(axis=(1, 2)), low.max(axis=(1, 2)) + 2
        self.box = (slice(start[0], stop[0]), slice(start[1], stop[1]))
        self.low = low - start[:, None, None]

    def sample(self, array: npt.NDArray[np.generic], *, slab: float = 0.0, outside: float | None = 0.0) -> Floats:
        """``array`` on these voxels; each slice the mean of three, the outer ``slab`` slices away.

        What lies beyond the case is ``outside``, or (None) what is nearest in it.
        """
        depths = (-slab, 0.0, slab) if slab else (0.0,)
        mixed = np.mean([self._slices(array, self.z + depth, outside) for depth in depths], axis=0)
        flat = mixed.reshape(len(mixed), -1)
        y, x = self.low
        corner, width = y * mixed.shape[2] + x, mixed.shape[2]
        part_y, part_x = self.part
        upper = flat[:, corner] * (1 - part_x) + flat[:, corner + 1] * part_x
        lower = flat[:, corner + width] * (1 - part_x) + flat[:, corner + width + 1] * part_x
        out: Floats = upper * (1 - part_y) + lower * part_y
        return out if outside is None else np.where(self.inside, out, np.float32(outside))

    def mask(self, mask: Mask | None, *, slab: float = 0.0) -> Flags:
        """Where at least half of a voxel is labelled (0 or 1), sampled as by `sample`; nowhere for None."""
        return np.zeros(self.shape, dtype=bool) if mask is None else self.sample(mask.labels, slab=slab) >= 0.5

    def _slices(self, array: npt.NDArray[np.generic], z: npt.NDArray[np.float64], outside: float | None) -> Floats:
        """The rectangle at fractional slices ``z``, float32; slices beyond the case as `sample` says."""
        top = self.extent[0] - 1
        low = np.clip(np.floor(z), 0, max(top - 1, 0)).astype(np.intp)
        part = np.clip(z - low, 0, 1).astype(np.float32)[:, None, None]
        high = np.minimum(low + 1, top)
        below, above = (array[at, *self.box].astype(np.float32) for at in (low, high))
        mixed: Floats = below * (1 - part) + above * part
        if outside is not None:
            mixed[(z < 0) | (z > top)] = outside
        return mixed
