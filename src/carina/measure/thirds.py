"""The thirds of each lung's height, in the patient's space and not by slices."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from carina.measure.chest import shows_half
from carina.measure.lungs import LEFT_LUNG, RIGHT_LUNG, SIDE_NAMES, world_axis
from carina.volume import Mask
from carina.volume.arrays import Box, Flags, Floats, Labels

THIRDS = ("lower third", "middle third", "upper third")
"""Thirds of a lung's height in the patient, from its feet upwards."""

THIRDS_NOT_TOLD = "Upper, middle and lower thirds are not told: less than half of the lungs' height is in view."


@dataclass(frozen=True, kw_only=True, eq=False)
class LungHeights:
    """Height of every voxel of a block as a line and a plane to be summed, and the two borders of each side's thirds.

    ``along`` has the height of each plane of the block (mm), ``within`` what a voxel of the plane adds; ``borders`` is
    ``(2, side)``. Thirds of what is in view are no thirds of the lungs: they are told (``are_told``) where at least
    half of the lungs' height is.
    """

    along: npt.NDArray[np.float64]
    within: Floats
    borders: Floats
    are_told: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Regions of each lung that are told, from its feet upwards."""
        return THIRDS if self.are_told else ()

    def region(self, side: int, third: int) -> str:
        """What a third of a lung is called; the lung's name alone where thirds are not told."""
        return " ".join((SIDE_NAMES.get(side, "lungs"), *self.names[third : third + 1]))

    def thirds(self, index: int, where: Flags, sides: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Which third (an index of ``THIRDS``) the voxels ``where`` of plane ``index`` lie in; ``sides`` are theirs.

        The first of all, where thirds are not told.
        """
        if not self.are_told:
            return np.zeros_like(sides)
        level = self.within[where] + np.float32(self.along[index])
        third: npt.NDArray[np.intp] = np.sum([level >= border[sides] for border in self.borders], axis=0, dtype=np.intp)
        return third

    def part(self, box: Box) -> LungHeights:
        """The heights in a block of this one."""
        return replace(self, along=self.along[box[0]], within=self.within[box[1:]])


def third_heights(lung: Mask, sides: Labels, box: Box) -> LungHeights:
    """The heights in the block of a lung mask that holds all of it, its voxels labelled by side."""
    grid = lung.grid
    lines = world_axis(grid, box, 2)
    within = (lines[1][:, None] + lines[2]).astype(np.float32)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for index, height in enumerate(lines[0]):
        for side in (LEFT_LUNG, RIGHT_LUNG):
            found = within[sides[index] == side]
            if found.size:
                low[side] = min(low[side], height + found.min())
                high[side] = max(high[side], height + found.max())
    low, high = (np.where(np.isfinite(end), end, 0.0) for end in (low, high))
    half_voxel = float(np.abs(grid.affine[2, :3]).sum()) / 2
    third = (high - low + 2 * half_voxel) / 3
    borders = np.stack([low - half_voxel + third, high + half_voxel - third]).astype(np.float32)
    return LungHeights(along=lines[0], within=within, borders=borders, are_told=shows_half(lung, box))
