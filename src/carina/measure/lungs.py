"""Which lung a voxel belongs to, by patient space and not by voxel order.

The work is done on a grid of about 3 mm: a label for every coarse cell, then spread to the full grid. Lungs that touch
(a thin anterior or posterior junction line) are parted where an erosion parts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume import Grid, Mask
from carina.volume.arrays import Box, Flags, Labels, bounding_box

LEFT_LUNG, RIGHT_LUNG = 1, 2
SIDE_NAMES: Mapping[int, str] = {LEFT_LUNG: "left lung", RIGHT_LUNG: "right lung"}

COARSE_MM = 3.0
"""Cell size of the grid on which lungs are told apart."""

PIECE_SHARE = 0.05
"""A connected piece with this share of all lung cells is (part of) a lung; smaller ones go to the nearer lung."""

LUNGS_APART_MM = 40.0
"""Two lungs' centres lie at least this far apart from left to right; the two halves of one lung do not."""

ONE_LUNG_SHARE = 0.75
"""No single lung spans more than this share of the width of both."""

BOTH_LUNGS_MM = 190.0
"""A piece wider than this that no erosion parts holds both lungs: it is cut at its narrowest place."""


def split_lungs(mask: Mask) -> Mask:
    """Tell left (1) from right (2) in a lung mask, whatever its labels and its voxel orientation.

    The patient's left is +x (LPS). One lung may be missing: what is there gets the side of the grid's middle it lies
    on, since patients lie in the middle of the field of view. An empty mask stays empty.
    """
    box = bounding_box(mask.labels)
    labels = np.zeros(mask.labels.shape, dtype=np.uint8)
    if box is not None:
        present = mask.labels[box] > 0
        sides = _Sides.tell_apart(present, mask.grid, box)
        for index in range(present.shape[0]):
            labels[box][index] = sides.plane(index) * present[index]
    return replace(mask, labels=labels, names=SIDE_NAMES)


def with_sides(lung: Mask, box: Box) -> Labels:
    """The block ``box`` of a lung mask as left (1) and right (2).

    A mask whose names say ``left`` and ``right`` keeps its own sides (voxels of other names go to the nearer lung); any
    other mask is split.
    """
    own = _own_sides(lung)
    if own is not None:
        return _nearest(own[lung.labels[box]], lung.labels[box] > 0, lung.grid)
    present = lung.labels[box] > 0
    sides = _Sides.tell_apart(present, lung.grid, box)
    return np.stack([sides.plane(index) * plane for index, plane in enumerate(present)])


def with_extra(lung: Mask, box: Box, extra: Flags) -> Mask:
    """The lung mask with the ``extra`` voxels of a block added, each labelled like the nearest voxel of the lung."""
    labels = lung.labels.copy()
    part = labels[box]
    added = extra & (part == 0)
    if len(lung.names) == 1:
        part[added] = next(iter(lung.names))
        return replace(lung, labels=labels)
    sides = _Sides.given(lung.labels, lung.grid)
    for index, plane in enumerate(added):
        part[index][plane] = sides.plane(box[0].start + index)[box[1:]][plane]
    return replace(lung, labels=labels)


def _nearest(labels: Labels, wanted: Flags, grid: Grid) -> Labels:
    """Labels, with those of the nearest cells at the ``wanted`` voxels that have none."""
    sides = _Sides.given(labels, grid)
    return np.stack(
        [np.where(plane > 0, plane, sides.plane(index) * wanted[index]) for index, plane in enumerate(labels)]
    )


def grown(labels: Labels) -> Labels:
    """The largest label of each voxel and its six neighbours."""
    largest = labels.copy()
    for axis in range(labels.ndim):
        ahead = tuple(slice(1, None) if n == axis else slice(None) for n in range(labels.ndim))
        back = tuple(slice(None, -1) if n == axis else slice(None) for n in range(labels.ndim))
        np.maximum(largest[ahead], labels[back], out=largest[ahead])
        np.maximum(largest[back], labels[ahead], out=largest[back])
    return largest


def world_axis(grid: Grid, box: Box, component: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Three lines whose broadcast sum is patient coordinate ``component`` (0 x, 1 y, 2 z; mm) in a block."""
    column = grid.affine[component]
    z, y, x = (np.arange(part.start, part.stop) * column[axis] for axis, part in enumerate(box))
    return z + column[3], y, x


def _own_sides(lung: Mask) -> Labels | None:
    """A table from label to side where the mask's names tell, else None."""
    table = np.zeros(256, dtype=np.uint8)
    for label, name in lung.names.items():
        words = name.lower().split()
        table[label] = LEFT_LUNG if "left" in words else RIGHT_LUNG if "right" in words else 0
    return table if {LEFT_LUNG, RIGHT_LUNG} <= set(table.tolist()) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sides:
    """The side of every cell of a coarse grid, and the coarse row of every fine one."""

    cells: Labels
    steps: tuple[int, int, int]
    shape: tuple[int, ...]

    @classmethod
    def tell_apart(cls, present: npt.NDArray[np.bool_], grid: Grid, box: Box) -> _Sides:
        """Find the lungs in a block of a lung mask."""
        steps = _steps(grid)
        z, y, x = (line[::step] for line, step in zip(world_axis(grid, box, 0), steps, strict=True))
        place = (z[:, None, None] + y[:, None] + x).astype(np.float32)
        middle = float(grid.points_mm((np.array(grid.shape) - 1) / 2)[0])
        coarse = present[:: steps[0], :: steps[1], :: steps[2]]
        if not coarse.any():
            coarse = np.ones_like(coarse)
        seeds = _seeds(coarse, place, middle, _coarse_mm(grid, steps))
        return cls(cells=_spread(seeds, _coarse_mm(grid, steps)), steps=steps, shape=present.shape)

    @classmethod
    def given(cls, labels: Labels, grid: Grid) -> _Sides:
        """Sides already known, to be spread to voxels outside."""
        steps = _steps(grid)
        coarse = labels[:: steps[0], :: steps[1], :: steps[2]]
        return cls(cells=_spread(coarse, _coarse_mm(grid, steps)), steps=steps, shape=labels.shape)

    def plane(self, index: int) -> Labels:
        """The side of every voxel of plane ``index`` of the block."""
        plane: Labels = self._planes[index // self.steps[0]]
        return plane

    @cached_property
    def _planes(self) -> Labels:
        """One plane for each layer of cells: every fine plane in it is the same."""
        rows = np.repeat(self.cells, self.steps[1], axis=1)[:, : self.shape[1]]
        return np.repeat(rows, self.steps[2], axis=2)[:, :, : self.shape[2]]


def _steps(grid: Grid) -> tuple[int, int, int]:
    z, y, x = (max(1, round(COARSE_MM / step)) for step in grid.spacing_mm)
    return z, y, x


def _coarse_mm(grid: Grid, steps: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(step * mm for step, mm in zip(steps, grid.spacing_mm, strict=True))


def _spread(seeds: Labels, cell_mm: tuple[float, ...]) -> Labels:
    """Give every cell the label of the nearest labelled one."""
    if not seeds.any():
        return np.full_like(seeds, LEFT_LUNG)
    nearest = ndimage.distance_transform_edt(seeds == 0, sampling=cell_mm, return_distances=False, return_indices=True)
    spread: Labels = seeds[tuple(nearest)]
    return spread


def _seeds(
    coarse: npt.NDArray[np.bool_], place: npt.NDArray[np.float32], middle: float, cell_mm: tuple[float, ...]
) -> Labels:
    """Label the cells of which the side is sure: whole lungs, or their cores where lungs touch."""
    width = float(np.ptp(place[coarse]))
    padded = np.pad(coarse, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=cell_mm)[1:-1, 1:-1, 1:-1]
    for level in np.arange(0.0, 0.6, 0.06) * float(depth.max()):
        seeds = _two_sides(_pieces(depth > level, place), ONE_LUNG_SHARE * width)
        if seeds is not None:
            return _grown_back(seeds, depth, float(level), min(cell_mm))
    if width > BOTH_LUNGS_MM:
        border = _narrowest(place[coarse])
        return np.where(place > border, np.uint8(LEFT_LUNG), np.uint8(RIGHT_LUNG)) * coarse
    side = LEFT_LUNG if float(place[coarse].mean()) > middle else RIGHT_LUNG
    return coarse.astype(np.uint8) * np.uint8(side)


def _two_sides(pieces: Sequence[_Piece], widest: float) -> Labels | None:
    """Pieces of two lungs as left and right; None where they are none, too wide for one lung or not apart."""
    centres = [piece.centre for piece in pieces]
    if not pieces or max(piece.width for piece in pieces) > widest or max(centres) - min(centres) <= LUNGS_APART_MM:
        return None
    border = (max(centres) + min(centres)) / 2
    seeds = np.zeros(pieces[0].cells.shape, dtype=np.uint8)
    for piece in pieces:
        seeds[piece.cells] = LEFT_LUNG if piece.centre > border else RIGHT_LUNG
    return seeds


def _grown_back(cores: Labels, depth: npt.NDArray[np.float64], level: float, step: float) -> Labels:
    """Let the cores of both lungs grow back, deep cells first, so that they meet at the neck between them."""
    labels = cores
    while level > 0:
        level -= step
        open_cells = depth > max(level, 0.0)
        missing = -1
        while missing != (missing := int(np.count_nonzero(open_cells & (labels == 0)))):
            labels = np.where((labels == 0) & open_cells, grown(labels), labels)
    return labels


@dataclass(frozen=True, kw_only=True, eq=False)
class _Piece:
    cells: npt.NDArray[np.bool_]
    centre: float
    width: float


def _pieces(present: npt.NDArray[np.bool_], place: npt.NDArray[np.float32]) -> list[_Piece]:
    """The connected pieces that are not small."""
    labels, count = ndimage.label(present)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    pieces = []
    for label in np.flatnonzero(sizes >= PIECE_SHARE * sizes.sum()):
        if label:
            cells = labels == label
            pieces.append(_Piece(cells=cells, centre=float(place[cells].mean()), width=float(np.ptp(place[cells]))))
    return pieces


def _narrowest(places: npt.NDArray[np.float32]) -> float:
    """Where the fewest cells lie, in the middle half of their extent."""
    counts, edges = np.histogram(places, bins=max(4, int(np.ptp(places) / (2 * COARSE_MM))))
    quarter = len(counts) // 4
    inner = counts[quarter : len(counts) - quarter]
    least = np.flatnonzero(inner == inner.min())
    index = quarter + int(least[np.abs(least - (len(inner) - 1) / 2).argmin()])
    return float(edges[index] + edges[index + 1]) / 2
