"""Which marked voxels are lesion of the lungs: one pair of masks that every output measures and shows.

Lung masks tend to leave dense tissue out where it reaches the pleura, and lesion networks mark what lies beside the
lungs. So a voxel marked outside the lung mask is lung, and lesion, only where one of two things holds:

* It lies within 3 mm of voxels that are marked in the lung, in a lesion of which at least half lies in the lung: the
  lung mask's border is not known better than that.
* It is in a piece that touches the lung with at least half its surface: such a piece fills a dent of the lung, as
  consolidation at the pleura does. What only leans against the lung, as the colon does from below the diaphragm,
  touches it with less, however large the lesion that it hangs together with.

Joined masks joined again stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import ModelFailed
from carina.measure.lungs import grown, with_extra
from carina.measure.texts import plain_ml_text
from carina.volume import Grid, Mask
from carina.volume.arrays import Box, Doubles, Flags, Labels, bounding_box, grown_box

MOST = 0.5
"""At least this share: of a lesion's volume that lies in the lung, of a piece's surface that touches it."""

BORDER_MM = 3.0
"""How far a lesion reaches beyond the lung mask without a reason of its own."""

TOUCHING_VOXELS = 2
"""Around a lesion's box: what a surface in it can touch across a gap of one voxel."""

SMALLEST_LESION_ML = 0.1
"""Connected lesions below this are measured but not counted, and not missed where they are left out."""

_Pieces = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinedMasks:
    """Lungs that hold their lesions, and lesions that lie in the lungs, with what that took in ml.

    ``added_ml`` of lesion were added to the lung mask, ``left_out_ml`` were marked but are no lesion of the lungs.
    Each mask keeps its labels, names and maker; the lesion's warnings say what was left out.
    """

    lung: Mask
    lesion: Mask
    added_ml: float
    left_out_ml: float


def join_masks(lesion: Mask, lung: Mask) -> JoinedMasks:
    """Add to the lung mask the lesions that it leaves out, and leave out of the lesion mask what is not in the lungs.

    Added voxels get the label of the nearest voxel of the lung. What the lung mask's scan was refused for, the lesion
    mask says too.

    Raises:
        ModelFailed: the masks lie on different grids; the message describes both.
    """
    same_grid("lesion mask", lesion.grid, "lung mask", lung.grid)
    if lung.refusals:
        lesion = replace(lesion, refusals=tuple(dict.fromkeys((*lesion.refusals, *lung.refusals))))
    box = bounding_box(lesion.labels)
    if box is None:
        return JoinedMasks(lung=lung, lesion=lesion, added_ml=0.0, left_out_ml=0.0)
    box = grown_box(box, TOUCHING_VOXELS, lesion.labels.shape)
    marked, held = lesion.labels[box] > 0, lung.labels[box] > 0
    if not (marked & ~held).any():
        return JoinedMasks(lung=lung, lesion=lesion, added_ml=0.0, left_out_ml=0.0)
    counted = _belonging(marked, held, lung.grid.spacing_mm)
    added_ml, left_out_ml = (
        float(np.count_nonzero(part)) * lung.grid.voxel_ml for part in (counted & ~held, marked & ~counted)
    )
    said = f"{plain_ml_text(left_out_ml)} ml marked as lesion lie outside the lungs and were left out."
    warnings = (*lesion.warnings, said) if left_out_ml >= SMALLEST_LESION_ML else lesion.warnings
    return JoinedMasks(
        lung=with_extra(lung, box, counted) if added_ml else lung,
        lesion=replace(
            lesion, labels=_only(lesion.labels, box, counted) if left_out_ml else lesion.labels, warnings=warnings
        ),
        added_ml=added_ml,
        left_out_ml=left_out_ml,
    )


def marked_share(lesion: Mask, lung: Mask) -> float:
    """Which share of the lungs is marked as lesion, 0 to 1: a hundredth of the ratio that is reported.

    Raises:
        ModelFailed: as ``join_masks``.
    """
    joined = join_masks(lesion, lung)
    held = np.count_nonzero(joined.lung.labels)
    return np.count_nonzero(joined.lesion.labels) / held if held else 0.0


def _only(labels: Labels, box: Box, counted: Flags) -> Labels:
    """Labels where they are counted within ``box``, and 0 elsewhere."""
    kept = np.zeros_like(labels)
    np.multiply(labels[box], counted, out=kept[box])
    return kept


def same_grid(name: str, grid: Grid, other_name: str, other: Grid) -> None:
    """Refuse to measure what lies on different grids.

    Raises:
        ModelFailed: ``measure.grids``; the message describes both.
    """
    if not grid.same_place(other):
        raise ModelFailed(
            "measure.grids",
            f"The {name} ({grid.told}) and the {other_name} ({other.told}) lie on different grids; "
            "resample one onto the other's grid before measuring.",
        )


def _belonging(marked: Flags, held: Flags, spacing_mm: tuple[float, ...]) -> Flags:
    """The marked voxels that are lesion of the lung, ``held`` being those of the lung mask; one lesion at a time."""
    labels, _ = ndimage.label(marked, structure=np.ones((3, 3, 3), dtype=np.bool_))
    counted: Flags = marked & held
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        around = grown_box(box, TOUCHING_VOXELS, labels.shape)
        own: Flags = labels[around] == number
        if (own & ~held[around]).any():
            counted[around] |= _of_lesion(own, held[around], spacing_mm)
    return counted


def _of_lesion(own: Flags, held: Flags, spacing_mm: tuple[float, ...]) -> Flags:
    """The voxels of one connected lesion that count; the block reaches two voxels beyond it, or to the scan's end."""
    inside, outside = own & held, own & ~held
    beside = np.zeros_like(own)
    if np.count_nonzero(inside) >= MOST * np.count_nonzero(own):
        away_mm = ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
        beside = outside & (away_mm <= BORDER_MM)
    pieces, _ = ndimage.label(outside & ~beside)
    touching, surface = _surfaces(pieces, held | beside, spacing_mm)
    fills = (touching > 0) & (touching >= MOST * surface)
    return inside | beside | fills[pieces]


def _surfaces(pieces: _Pieces, lung: Flags, spacing_mm: tuple[float, ...]) -> tuple[Doubles, Doubles]:
    """For each piece (by its label) the area that touches the lung, and its whole area, in mm2.

    A gap of one voxel still touches, since borders drawn by two networks seldom meet. Where the scan ends there is no
    surface.
    """
    near = grown(lung.astype(np.uint8)) > 0
    size = int(pieces.max(initial=0)) + 1
    touching, surface = np.zeros(size), np.zeros(size)
    for axis, step_mm in enumerate(spacing_mm):
        area_mm2 = float(np.prod(spacing_mm)) / step_mm
        along, beyond = np.moveaxis(pieces, axis, 0), np.moveaxis(near, axis, 0)
        for own, other, lungs in ((along[:-1], along[1:], beyond[1:]), (along[1:], along[:-1], beyond[:-1])):
            faces = (own > 0) & (other != own)
            surface += area_mm2 * np.bincount(own[faces], minlength=size)
            touching += area_mm2 * np.bincount(own[faces & lungs], minlength=size)
    return touching, surface
