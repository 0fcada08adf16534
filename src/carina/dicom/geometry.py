"""Where slices lie: order, spacing, tilt; the grid of the volume read from them; a mask put back onto them.

Everything comes from Image Position and Image Orientation (Patient), nothing from thickness or file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from carina.dicom.series import Series
from carina.errors import BadSeries, ModelFailed
from carina.volume.arrays import Doubles
from carina.volume.grid import Axes, Grid, Triple
from carina.volume.plausible import SPACING_MM, check_grid
from carina.volume.volume import Mask

SAME_POSITION = 0.1
"""Neighbours closer than this part of the usual distance lie at one position."""

EVEN = 0.02
"""Slices are even when none lies further from an even grid than this part of the distance."""

SLIGHTLY_UNEVEN = 0.25
"""Distances that differ by no more than this part of the usual one are evened by interpolation."""

GAP_RATIO = 1.5
"""From this multiple of the usual distance on, slices are missing."""

ALIGNED_PIXELS = 0.25
"""Slices that drift less than this many pixels over the whole series are not sheared."""

MAX_TILT_DEG = 45.0

STRAIGHT_MM = 0.5
"""A tilted series' slices lie on one line within this distance."""

PLACES_SHOWN = 3
"""Places that a message names before it counts the rest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumePlan:
    """How slices become a volume.

    ``grid`` is the volume's. Slice ``k`` lies ``along_mm[k]`` from the first along the normal, and its first pixel at
    the fractional row ``rows_down[k]`` and column ``columns_right[k]`` of the grid (all 0 unless ``is_sheared``).
    ``is_even`` says that slice ``k`` is the volume's slice ``k``; otherwise slices are interpolated.
    """

    grid: Grid
    along_mm: Doubles
    rows_down: Doubles
    columns_right: Doubles
    is_even: bool
    is_sheared: bool
    tilt_deg: float


def image_axes(orientation: Sequence[float]) -> Axes:
    """Unit vectors of the slice normal, of growing row index and of growing column index, from the six cosines.

    Raises:
        BadSeries: the cosines are no pair of orthogonal unit vectors (PS3.3 C.7.6.2.1.1).
    """
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(right), np.linalg.norm(down)
    if any(abs(length - 1.0) > 0.01 for length in lengths) or abs(float(right @ down)) > 0.01:
        raise BadSeries(
            "series.orientation",
            f"Image Orientation (Patient) {tuple(orientation)} is no pair of orthogonal unit vectors.",
        )
    right = right / lengths[0]
    down = down - (down @ right) * right
    down /= np.linalg.norm(down)
    return _triple(np.cross(right, down)), _triple(down), _triple(right)


def _triple(vector: Doubles) -> Triple:
    x, y, z = (float(v) + 0.0 for v in vector)
    return (x, y, z)


def plane(axes: Axes) -> str:
    """The nearest anatomical plane of an image: ``axial``, ``coronal`` or ``sagittal``."""
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(axes[0])))]


def degrees_from_plane(axes: Axes) -> float:
    """The angle between the slice normal and the nearest of the body's three axes, in degrees."""
    return float(np.degrees(np.arccos(min(1.0, max(abs(v) for v in axes[0])))))


def distances_mm(positions_mm: Sequence[Triple], axes: Axes) -> Doubles:
    """Where each position lies along the slice normal, in mm from the patient's origin (axial slices: its z)."""
    along: Doubles = np.array(positions_mm, dtype=np.float64) @ np.array(axes[0])
    return along


def usual_distance_mm(along_mm: Doubles) -> float:
    """The median distance of neighbours, those at one position apart; 0 where all lie at one position."""
    steps = np.diff(np.sort(along_mm))
    apart = steps[steps > 0.01]
    if not apart.size:
        return 0.0
    apart = apart[apart > SAME_POSITION * float(np.median(apart))]
    return float(np.median(apart))


def check_spacing(along_mm: Doubles, names: Sequence[str]) -> None:
    """Refuse ordered slices that share a position, have a gap between them, or are too uneven to interpolate.

    Raises:
        BadSeries: the message names the slices and the distances.
    """
    steps = np.diff(along_mm)
    usual = usual_distance_mm(along_mm)
    _check_unit(steps)
    at_once = np.flatnonzero(steps <= max(SAME_POSITION * usual, 0.01))
    if at_once.size:
        raise BadSeries("series.duplicate", _duplicates(along_mm, at_once, names))
    gaps = np.flatnonzero(steps >= GAP_RATIO * usual)
    if gaps.size:
        places = _places(along_mm, gaps, names)
        raise BadSeries(
            "series.gap", f"slices are missing: {places}, where {usual:.2f} mm is usual; send the complete series."
        )
    uneven = np.flatnonzero(np.abs(steps - usual) > SLIGHTLY_UNEVEN * usual)
    if uneven.size:
        places = _places(along_mm, uneven, names)
        raise BadSeries("series.uneven", f"slices are uneven: {places}, where {usual:.2f} mm is usual.")


def _check_unit(steps_mm: Doubles) -> None:
    """Refuse slices that are parted, but by less than any scanner's: their positions are in metres, mostly."""
    middle = float(np.median(steps_mm))
    if 0 < middle < SPACING_MM[0] and steps_mm.min() > SAME_POSITION * middle:
        low, high = SPACING_MM
        words = f"its slices are {middle:.4g} mm apart, expected {low:g} to {high:g} mm; correct the positions"
        raise BadSeries("series.spacing", f"{words}.")


def _places(along_mm: Doubles, after: npt.NDArray[np.intp], names: Sequence[str]) -> str:
    told = [
        f"{along_mm[k + 1] - along_mm[k]:.2f} mm between {names[k]} (at {along_mm[k]:.2f} mm) "
        f"and {names[k + 1]} (at {along_mm[k + 1]:.2f} mm)"
        for k in after[:PLACES_SHOWN]
    ]
    more = f" and at {after.size - PLACES_SHOWN} more places" if after.size > PLACES_SHOWN else ""
    return ", ".join(told) + more


def _duplicates(along_mm: Doubles, after: npt.NDArray[np.intp], names: Sequence[str]) -> str:
    told = [f"{names[k]} and {names[k + 1]} (at {along_mm[k]:.2f} mm)" for k in after[:PLACES_SHOWN]]
    more = f" and {after.size - PLACES_SHOWN} more" if after.size > PLACES_SHOWN else ""
    return (
        f"several slices lie at one position and their headers do not part them into volumes: {', '.join(told)}{more}; "
        "send one acquisition alone."
    )


def plan_volume(series: Series) -> VolumePlan:
    """Lay out the volume of a series: its slices' own plane, even steps along the normal, shears undone.

    Raises:
        BadSeries: slices share a position, miss, or lie on no straight line, and the message names them; or no chest
            CT has voxels or a field of view of this size.
    """
    names = [slice_name(instance.path.name, instance.frame) for instance in series.instances]
    points = np.array([instance.position_mm for instance in series.instances], dtype=np.float64)
    offsets = (points - points[0]) @ np.array(series.slice_axes).T
    along, down, right = offsets[:, 0], offsets[:, 1], offsets[:, 2]
    check_spacing(along + points[0] @ np.array(series.slice_axes[0]), names)
    pixel = series.pixel_spacing_mm
    drift = max(np.ptp(down) / pixel[0], np.ptp(right) / pixel[1])
    is_sheared = bool(drift > ALIGNED_PIXELS)
    tilt = _tilt_deg(offsets, names) if is_sheared else 0.0
    rows_down = (down - down.min()) / pixel[0] if is_sheared else np.zeros(len(along))
    columns_right = (right - right.min()) / pixel[1] if is_sheared else np.zeros(len(along))
    even = np.linspace(0.0, along[-1], len(along))
    is_even = bool(np.abs(along - even).max() <= max(EVEN * even[1], 0.02))
    grid = Grid(
        shape=(
            len(along),
            series.rows + int(np.ceil(rows_down.max() - 1e-6)),
            series.columns + int(np.ceil(columns_right.max() - 1e-6)),
        ),
        spacing_mm=(float(even[1]), pixel[0], pixel[1]),
        origin_mm=_origin(points[0], series.slice_axes, offsets) if is_sheared else _triple(points[0]),
        axes=series.slice_axes,
    )
    check_grid(grid, f"series {series.uid}", origin="series")
    return VolumePlan(
        grid=grid,
        along_mm=along,
        rows_down=rows_down,
        columns_right=columns_right,
        is_even=is_even,
        is_sheared=is_sheared,
        tilt_deg=tilt,
    )


def _origin(first: Doubles, axes: Axes, offsets: Doubles) -> Triple:
    """The corner that the slice furthest up and the slice furthest left share, in the first slice's plane."""
    return _triple(first + offsets[:, 1].min() * np.array(axes[1]) + offsets[:, 2].min() * np.array(axes[2]))


def _tilt_deg(offsets: Doubles, names: Sequence[str]) -> float:
    """The angle between the slice normal and the line through the slices, in degrees."""
    along, beside = offsets[:, 0], offsets[:, 1:]
    line = along[:, None] / along[-1] * beside[-1]
    astray = np.linalg.norm(beside - line, axis=1)
    worst = int(np.argmax(astray))
    if astray[worst] > STRAIGHT_MM:
        raise BadSeries(
            "series.shifted",
            f"{names[worst]} lies {astray[worst]:.2f} mm beside the line through the other slices; "
            "send the series as it was reconstructed.",
        )
    angle = float(np.degrees(np.arctan2(np.linalg.norm(beside[-1]), along[-1])))
    if angle > MAX_TILT_DEG:
        raise BadSeries(
            "series.tilt",
            f"slices are tilted by {angle:.1f} degrees against their line; at most {MAX_TILT_DEG:.0f} are corrected.",
        )
    return angle


def slice_name(file_name: str, frame: int | None) -> str:
    """How a message names a slice: its file, and its frame in a multi-frame one."""
    return file_name if frame is None else f"{file_name} frame {frame}"


def source_grid_indices(series: Series, grid: Grid) -> Doubles:
    """For each source slice, the fractional ``(z, y, x)`` index in ``grid`` of its first pixel: ``(slices, 3)``.

    Raises:
        ModelFailed: the grid's axes are not those of the slices, so no slice has a plane of its own in it.
    """
    if np.abs(np.array(grid.axes) - np.array(series.slice_axes)).max() > 1e-3:
        raise ModelFailed(
            "geometry.axes", "the mask's grid is turned against the source slices; masks keep their volume's."
        )
    return grid.indices([instance.position_mm for instance in series.instances])


def mask_on_source(mask: Mask, series: Series) -> npt.NDArray[np.uint8]:
    """The labels at every pixel of the source slices, nearest neighbour: ``(slices, rows, columns)`` uint8.

    Slices are in the order of ``series.instances``; pixels outside of the mask's grid are 0. Where the volume was read
    without resampling this is the mask itself, unchanged.

    Raises:
        ModelFailed: the mask's grid is not that of the volume that is read from the series.
    """
    first = source_grid_indices(series, mask.grid)
    expected = plan_volume(series).grid
    if not mask.grid.same_place(expected):
        words = f"the mask ({mask.grid.told}) does not lie on the grid of its series' volume ({expected.told})"
        raise ModelFailed("geometry.grid", f"{words}; resample it onto that grid first.")
    shape = (len(series.instances), series.rows, series.columns)
    whole = np.arange(shape[0])[:, None] * np.array([1, 0, 0])
    pixel = series.pixel_spacing_mm
    scale = (pixel[0] / mask.grid.spacing_mm[1], pixel[1] / mask.grid.spacing_mm[2])
    if mask.labels.shape == shape and np.abs(first - whole).max() < 0.1 and np.allclose(scale, 1.0, atol=1e-4):
        return mask.labels
    out = np.zeros(shape, np.uint8)
    for k, (z, y, x) in enumerate(first):
        rows = _nearest(y + scale[0] * np.arange(series.rows))
        columns = _nearest(x + scale[1] * np.arange(series.columns))
        plane_index = int(_nearest(np.array([z]))[0])
        if 0 <= plane_index < mask.grid.shape[0]:
            inside_rows = (rows >= 0) & (rows < mask.grid.shape[1])
            inside_columns = (columns >= 0) & (columns < mask.grid.shape[2])
            picked = mask.labels[plane_index][np.ix_(rows[inside_rows], columns[inside_columns])]
            out[k][np.ix_(inside_rows, inside_columns)] = picked
    return out


def _nearest(values: Doubles) -> npt.NDArray[np.intp]:
    return np.floor(values + 0.5).astype(np.intp)


def has_shared_positions(along_mm: Doubles) -> bool:
    """Whether two slices lie at one position."""
    ordered = np.sort(along_mm)
    limit = max(SAME_POSITION * usual_distance_mm(ordered), 0.01)
    return any(b - a <= limit for a, b in pairwise(ordered))
