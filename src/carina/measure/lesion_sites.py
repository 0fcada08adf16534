"""Every lesion by itself: how large it is, and where in the lungs it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.measure.findings import LesionSite
from carina.measure.joined import SMALLEST_LESION_ML
from carina.measure.lungs import with_sides
from carina.measure.thirds import THIRDS, LungHeights, third_heights
from carina.volume import Grid, Mask
from carina.volume.arrays import Box, Flags, Labels, bounding_box

_Pieces = npt.NDArray[np.signedinteger[Any]]


def lesion_sites(lesion: Mask, lung: Mask) -> tuple[LesionSite, ...]:
    """The lesions that are counted (26 neighbours, at least 0.1 ml) in joined masks, the largest first."""
    box = bounding_box(lung.labels)
    if box is None or lesion.is_empty:
        return ()
    sides = with_sides(lung, box)
    return sites_within(lesion.labels[box] > 0, sides, third_heights(lung, sides, box), box, lung.grid)


def sites_within(marked: Flags, sides: Labels, heights: LungHeights, box: Box, grid: Grid) -> tuple[LesionSite, ...]:
    """The same in the block ``box`` of the grid, whose sides and heights are known."""
    inner = bounding_box(marked)
    if inner is None:
        return ()
    sides, heights, box = sides[inner], heights.part(inner), _block_of(box, inner)
    pieces, count = ndimage.label(marked[inner], structure=np.ones((3, 3, 3), dtype=np.bool_))
    sizes = np.sum([np.bincount(plane.ravel(), minlength=count + 1) for plane in pieces], axis=0)
    sizes[0] = 0
    by_size = np.argsort(-sizes, kind="stable")
    counted = [int(piece) for piece in by_size if piece and sizes[piece] * grid.voxel_ml >= SMALLEST_LESION_ML]
    regions = _regions(pieces, count, sides, heights) if counted else []
    extents = ndimage.find_objects(pieces) if counted else []
    return tuple(
        LesionSite(
            number=number,
            lesion_ml=float(sizes[piece]) * grid.voxel_ml,
            region=regions[piece],
            index=_middle(pieces, piece, extents[piece - 1], box, grid),
        )
        for number, piece in enumerate(counted, 1)
    )


def _block_of(box: Box, inner: Box) -> Box:
    """In the whole grid, the block ``inner`` of the block ``box``."""
    z, y, x = (slice(of.start + part.start, of.start + part.stop) for of, part in zip(box, inner, strict=True))
    return z, y, x


def _regions(pieces: _Pieces, count: int, sides: Labels, heights: LungHeights) -> list[str]:
    """By piece, the name of the third that holds most of it; of the lung where thirds are not told."""
    places = len(THIRDS) * 3
    held = np.zeros((count + 1) * places, dtype=np.int64)
    for index, plane in enumerate(pieces):
        where = (plane > 0) & (sides[index] > 0)
        side = sides[index][where].astype(np.intp)
        code = (plane[where] * len(THIRDS) + heights.thirds(index, where, side)) * 3 + side
        held += np.bincount(code, minlength=held.size)
    most = held.reshape(count + 1, places).argmax(axis=1)
    return [heights.region(int(place) % 3, int(place) // 3) for place in most]


def _middle(pieces: _Pieces, piece: int, extent: tuple[slice, ...], box: Box, grid: Grid) -> tuple[int, int, int]:
    own: Flags = pieces[extent] == piece
    plane = int(np.argmax(np.count_nonzero(own, axis=(1, 2))))
    places = np.argwhere(own[plane])
    away_mm = (places - places.mean(axis=0)) * grid.spacing_mm[1:]
    row, column = places[np.argmin((away_mm**2).sum(axis=1))]
    starts = (within.start + part.start for within, part in zip(extent, box, strict=True))
    z, y, x = (int(start + step) for start, step in zip(starts, (plane, row, column), strict=True))
    return z, y, x
