"""Where to look: the body and the lungs, found by thresholds at a few millimetres, in well under a second.

The lungs' box is generous on purpose. A threshold sees air, and consolidated lung has none: the box is mirrored about
the middle of the body, widened by a margin, and whoever finds lung at its faces widens it again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.volume.arrays import Box, marked_box
from carina.volume.grid import Grid
from carina.volume.resample import reorient
from carina.volume.volume import Volume

AIR_OR_LUNG_HU = -400
"""Below: air, or lung."""

LOOK_MM = 3.0
"""The spacing that is enough to find body and lungs."""

SMALLEST_LUNG_ML = 10.0
"""Enclosed air of less than this is not taken for lung."""

SMALLEST_SHARE = 0.1
"""Enclosed air of less than this share of the largest piece is not taken for lung: bowel gas, oesophagus."""

ENCLOSED_ML = 500.0
"""With less enclosed air, lungs may be open to the edge of a small field of view: nothing is called outside."""

THIN_MM = 12.0
"""Walls of a couch are thinner than this, a chest's are not."""

_IN_PLANE = np.array(
    [[[0, 0, 0], [0, 0, 0], [0, 0, 0]], [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool
)


_SEEN: WeakKeyDictionary[Volume, dict[str, Regions]] = WeakKeyDictionary()
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Boxes in voxels of the grid that was looked at; None where nothing was found.

    ``air`` marks the air of the lungs, bool on the grid ``coarse``; None where none was found. ``around`` marks what
    surrounds the body, on the same grid; None where less air than `ENCLOSED_ML` is enclosed.
    """

    body: Box | None
    lungs: Box | None
    air: npt.NDArray[np.bool_] | None = None
    around: npt.NDArray[np.bool_] | None = None
    coarse: Grid | None = None


def regions_of(volume: Volume, orientation: str) -> Regions:
    """Body and lungs of ``volume`` seen in ``orientation``, looked for once: every network of a run asks."""
    with _LOCK:
        known = _SEEN.setdefault(volume, {})
        if orientation not in known:
            known[orientation] = find_regions(*reorient(volume.hu, volume.grid, orientation))
        return known[orientation]


def find_regions(hu: npt.NDArray[np.int16], grid: Grid) -> Regions:
    """Find body and lungs in ``hu``, whose axes ``(z, y, x)`` run along the body, its sides and its depth.

    The lungs' box is mirrored about the body's middle along x and holds no margin.
    """
    strides = [max(1, int(LOOK_MM // spacing)) for spacing in grid.spacing_mm]
    coarse = hu[tuple(slice(None, None, stride) for stride in strides)]
    voxel_ml = grid.voxel_ml * float(np.prod(strides))
    air = np.asarray(coarse < AIR_OR_LUNG_HU)
    body = _largest(ndimage.binary_opening(~air))
    if body is None:
        return Regions(body=None, lungs=None)
    body_box = marked_box(body)
    pieces, count = ndimage.label(air & _enclosed(body))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = (sizes * voxel_ml >= SMALLEST_LUNG_ML) & (sizes >= SMALLEST_SHARE * sizes.max())
    if not kept.any():
        return Regions(body=_fine(body_box, strides, hu.shape), lungs=None)
    lung_air = kept[pieces]
    lungs = marked_box(lung_air)
    middle = body_box[2].start + body_box[2].stop
    x = lungs[2]
    mirrored = slice(min(x.start, middle - x.stop), max(x.stop, middle - x.start))
    lungs = (lungs[0], lungs[1], slice(max(mirrored.start, 0), min(mirrored.stop, coarse.shape[2])))
    trusted = float(sizes[kept].sum()) * voxel_ml >= ENCLOSED_ML
    dz, dy, dx = (step * stride for step, stride in zip(grid.spacing_mm, strides, strict=True))
    return Regions(
        body=_fine(body_box, strides, hu.shape),
        lungs=_fine(lungs, strides, hu.shape),
        air=lung_air,
        around=_around(air, (dz, dy, dx)) if trusted else None,
        coarse=replace(grid, shape=coarse.shape, spacing_mm=(dz, dy, dx)),
    )


def _around(air: npt.NDArray[np.bool_], spacing_mm: Sequence[float]) -> npt.NDArray[np.bool_]:
    """What surrounds the body: air that reaches two or more sides of its slice, and what it cuts off (couch, clothes).

    Lungs that a small field of view cuts reach one side. Walls of up to `THIN_MM` between such air go with it; of what
    is left, the largest piece is the body.
    """
    around = sides_reached(air) >= 2
    steps = max(1, round(THIN_MM / 2 / spacing_mm[1]))
    grown = ndimage.binary_dilation(around, _IN_PLANE, iterations=steps)
    closed = ndimage.binary_erosion(grown, _IN_PLANE, iterations=steps, border_value=1)
    body = _largest(~(around | closed))
    return np.ones_like(around) if body is None else ~body


def _largest(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    pieces, count = ndimage.label(mask)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _enclosed(body: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What the body encloses within each slice; a cut body must not let the lungs run out at top or bottom."""
    enclosed: npt.NDArray[np.bool_] = ~body & (sides_reached(~body) == 0)
    return enclosed


def sides_reached(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """How many sides of its slice each voxel's piece of ``mask`` (``(z, y, x)``, joined in the slice) reaches."""
    pieces, count = ndimage.label(mask, structure=_IN_PLANE)
    sides = np.zeros(count + 1, dtype=np.uint8)
    for face in (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1]):
        sides[np.unique(face)] += 1
    sides[0] = 0
    return np.asarray(sides[pieces])


def _fine(box: Box, strides: list[int], shape: tuple[int, ...]) -> Box:
    """The box in voxels of the full grid: everything that a coarse voxel stands for."""
    parts: list[Any] = [
        slice(max(0, (part.start - 1) * stride + 1), min(part.stop * stride, size))
        for part, stride, size in zip(box, strides, shape, strict=True)
    ]
    return (parts[0], parts[1], parts[2])
