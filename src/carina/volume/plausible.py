"""Whether numbers can be true: a chest CT's Hounsfield units and its geometry, by the same rules for every source."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from carina.errors import BadSeries
from carina.volume.grid import Grid

Origin = Literal["series", "file"]
"""Where voxels come from; error codes begin with it."""

AIRLIKE_HU = -600
"""Some voxels of every chest are lower: the windpipe at least. Masks, pictures, MR and lost intercepts are not."""

DENSE_HU = 600
"""Above lies compact bone, metal and dense contrast."""

MOST_DENSE = 0.3
"""Share of the voxels above ``AIRLIKE_HU`` that may lie above ``DENSE_HU``: a chest has 0.03, a head 0.2."""

TISSUE_HU = (-300, 300)
LEAST_TISSUE = 0.03
"""Share of the voxels above ``AIRLIKE_HU`` that lie in the range of soft tissue: a third even in lungs cut out."""

DEEP_HU = -1200
"""Noise and streaks hardly reach below; padding does, with one value or two."""

MOST_DEEP = 0.05
PADDING_VALUES = 3
LEAST_PADDING = 0.5
"""Share of the deep voxels that the three commonest values hold, where these are padding."""

LEAST_SHAPE = (10, 64, 64)
"""Of fewer voxels along an axis, the smallest first, no shares are taken; the shipped rules take no such series."""

SAMPLE_VOXELS = 1 << 18

MOST_STEP_HU = 300.0
STEP_SAMPLE = 2
"""Soft tissue of neighbouring slices differs by less in the middle; an intercept that is lost moves it by 1024."""

SPACING_MM = (0.05, 30.0)
"""Photon-counting CT has 0.1 mm pixels, old high-resolution CT a slice every 20 mm."""

LEAST_FIELD_MM = 50.0
FIELD_VOXELS = 64
"""A crop of fewer voxels may be smaller than the least field of view."""

MOST_FIELD_MM = 1000.0
MOST_LENGTH_MM = 2500.0
"""No gantry is wider than ``MOST_FIELD_MM``, no table longer than this."""


def check_grid(grid: Grid, name: str, *, origin: Origin) -> None:
    """Refuse voxel sizes and fields of view that no chest CT has: lengths in metres or micrometres, mostly.

    Raises:
        BadSeries: ``series.spacing`` or ``file.spacing``; the message names the sizes seen.
    """
    sizes = " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
    low, high = SPACING_MM
    if not all(low <= s <= high for s in grid.spacing_mm):
        raise _bad(origin, "spacing", f"{name}: voxels of {sizes} mm (z, y, x), expected {low:g} to {high:g} mm")
    middle, longest = sorted(grid.extent_mm)[1:]
    is_small = longest < LEAST_FIELD_MM and max(grid.shape) >= FIELD_VOXELS
    if is_small or middle > MOST_FIELD_MM or longest > MOST_LENGTH_MM:
        extent = " x ".join(f"{e:.4g}" for e in grid.extent_mm)
        raise _bad(
            origin,
            "spacing",
            f"{name}: a field of view of {extent} mm (z, y, x) from voxels of {sizes} mm, expected "
            f"{LEAST_FIELD_MM:g} to {MOST_FIELD_MM:g} mm",
        )


def check_hu(
    hu: npt.NDArray[np.int16], name: str, *, origin: Origin, unclipped: npt.NDArray[Any] | None = None
) -> None:
    """Refuse voxels ``(z, y, x)`` that can't be a chest CT's Hounsfield units: shifted, scaled, inverted, windowed.

    A sample raises the suspicion, every voxel confirms it: what is rare is never missed, and a good volume costs a
    millisecond. A series smaller than ``LEAST_SHAPE`` is not judged, a file so small only by its range. ``unclipped``
    is a sample of the values before they were clipped to -1024, where the source has it.

    Raises:
        BadSeries: ``series.no-hu`` or ``file.no-hu``; the message names what was seen.
    """
    is_small = any(count < least for count, least in zip(sorted(hu.shape), LEAST_SHAPE, strict=True))
    if is_small:
        words = _beyond_range(hu, TISSUE_HU[0]) if origin == "file" else ""
    else:
        words = _deep(unclipped) if unclipped is not None else ""
        words = words or (_doubt(_sample(hu)) and _doubt(hu))
    if words:
        expected = "a chest CT in HU has air near -1000 and soft tissue near 50"
        raise _bad(origin, "no-hu", f"{name}: {words}; {expected}")


def step_hu(before: npt.NDArray[np.int16], after: npt.NDArray[np.int16]) -> float:
    """By how many HU soft tissue leaps from a slice ``(y, x)`` to the next: near 0 whatever the anatomy does there."""
    one, other = (slice_hu[::STEP_SAMPLE, ::STEP_SAMPLE].astype(np.int32) for slice_hu in (before, after))
    low, high = TISSUE_HU
    tissue = ((one > low) & (one < high)) | ((other > low) & (other < high))
    return float(np.median((other - one)[tissue])) if tissue.any() else 0.0


def _bad(origin: Origin, what: str, words: str) -> BadSeries:
    cure = {
        ("series", "no-hu"): "correct Rescale Slope and Intercept, or take the series from the scanner or PACS again",
        ("file", "no-hu"): "give the CT itself in HU, not a mask, picture or scaled copy",
        ("series", "spacing"): "correct Pixel Spacing and the positions",
        ("file", "spacing"): "correct the header, or convert the DICOM series again",
    }[origin, what]
    return BadSeries(f"{origin}.{what}", f"{words}; {cure}.")


def _sample(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Whole rows of evenly spread slices: few enough to look at in no time, spread as the voxels are."""
    step = max(1, int(np.sqrt(hu.size / SAMPLE_VOXELS)))
    return hu[::step, ::step]


def _doubt(hu: npt.NDArray[np.int16]) -> str:
    """What speaks against these being HU, or nothing."""
    beyond = _beyond_range(hu, AIRLIKE_HU)
    if beyond:
        return beyond
    solid = int(np.count_nonzero(hu > AIRLIKE_HU))
    if not solid:
        return f"nothing lies above {AIRLIKE_HU}"
    dense = int(np.count_nonzero(hu > DENSE_HU)) / solid
    if dense > MOST_DENSE:
        return f"{dense:.0%} of what is not air lies above {DENSE_HU}, as if 1024 were missing or the sign turned"
    tissue = int(np.count_nonzero((hu >= TISSUE_HU[0]) & (hu <= TISSUE_HU[1]))) / solid
    if tissue < LEAST_TISSUE:
        return f"{tissue:.1%} of what is not air lies between {TISSUE_HU[0]} and {TISSUE_HU[1]}, as soft tissue does"
    return ""


def _beyond_range(hu: npt.NDArray[np.int16], air_hu: int) -> str:
    low, high = int(hu.min()), int(hu.max())
    return f"values run from {low} to {high}{_guess(low, high)}" if low > air_hu else ""


def _guess(low: int, high: int) -> str:
    if low >= -20 and high <= 20:
        return ", as in a mask or after scaling for a network"
    if low >= 0 and high <= 255:
        return ", as in an 8-bit picture"
    if high >= 1000:
        return ", as if the Rescale Intercept (often -1024) were lost"
    return ""


def _deep(values: npt.NDArray[Any]) -> str:
    """What speaks against values far below air: they are many, and not the one or two values of padding."""
    deep = values[values < DEEP_HU]
    if len(deep) <= MOST_DEEP * len(values):
        return ""
    counts = np.sort(np.unique(np.rint(deep), return_counts=True)[1])
    if counts[-PADDING_VALUES:].sum() >= LEAST_PADDING * len(deep):
        return ""
    share = len(deep) / len(values)
    return f"{share:.0%} of the values lie below {DEEP_HU} and differ, so are no padding"
