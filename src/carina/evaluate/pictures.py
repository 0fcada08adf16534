"""Key slices of one case for the report: truth and result outlined, or the lungs that a classifier saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from carina.evaluate.values import ReportPicture
from carina.measure.key_slices import choose_slices
from carina.report.overlay import VIEWS, layout, position_mm
from carina.report.paint import Lettering, Plane, Style, annotate, jpeg, paint
from carina.volume import Mask, Volume
from carina.volume.arrays import Flags

SLICES = 3
COMPARED_PX = 460
PICTURE_MARGIN_MM = 14.0
SMALLEST_MM = 90.0
"""A window is at least this wide and high, so that a small lesion is seen where it lies."""


def compared_slices(volume: Volume, found: Mask, truth: Mask) -> tuple[ReportPicture, ...]:
    """Slices where result and truth differ most: the truth outlined in blue, the result in orange."""
    a, b = found.labels > 0, truth.labels > 0
    differing = _slices(volume, a | b, a ^ b)
    return tuple(
        _picture(volume, b, a, index, f"{_cm2(volume, (a ^ b)[index])} cm\u00b2 differ") for index in differing
    )


def classified_slices(volume: Volume, lung: Mask) -> tuple[ReportPicture, ...]:
    """Slices spread over the lungs, these outlined in blue."""
    inside = lung.labels > 0
    nothing = np.zeros_like(inside)
    return tuple(_picture(volume, inside, nothing, index, "") for index in _slices(volume, inside, nothing))


def _slices(volume: Volume, shown: Flags, wanted: Flags) -> list[int]:
    def mask(flags: Flags) -> Mask:
        return Mask(labels=flags.astype(np.uint8), grid=volume.grid, names={1: "shown"}, uid=volume.uid)

    return [key.index for key in choose_slices(None, mask(shown), mask(wanted), SLICES)]


def _picture(volume: Volume, truth: Flags, found: Flags, index: int, word: str) -> ReportPicture:
    nearest = layout(volume.grid, "axial")
    view = nearest if nearest.normal == 0 else None
    spacing = volume.grid.spacing_mm[1:]
    window = _window(np.asarray((truth | found).any(axis=0)), spacing)

    def turned(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return plane[window] if view is None else view.turn(plane[window])

    is_transposed = view is not None and view.rows > view.columns
    plane = Plane(
        hu=turned(volume.hu[index]),
        lung=turned(truth[index]),
        lesion=turned(found[index]),
        spacing_mm=spacing[::-1] if is_transposed else spacing,
    )
    picture = paint(plane, COMPARED_PX, style=Style(lesion_fill=0.0))
    letters = ("", "", *VIEWS["axial"].letters[2:]) if view is not None else ("", "", "", "")
    annotate(picture, Lettering(letters=letters, line=""), picture.width / plane.size_mm[1], letters_across=26)
    place = f"Slice {index}"
    if view is not None:
        place += f", z {position_mm(volume.grid, 0, index, 'z'):.1f} mm"
    return ReportPicture(image=jpeg(picture), size=picture.size, caption=f"{place}; {word}" if word else place)


def _window(shown: Flags, spacing_mm: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns around what is shown in any slice; everything where there is nothing."""
    parts = []
    for axis, step in enumerate(spacing_mm):
        places = np.flatnonzero(shown.any(axis=1 - axis))
        if not places.size:
            return slice(0, shown.shape[0]), slice(0, shown.shape[1])
        width = (int(places[-1]) - int(places[0]) + 1) * step
        more = int(np.ceil(max(PICTURE_MARGIN_MM, (SMALLEST_MM - width) / 2) / step))
        parts.append(slice(max(0, int(places[0]) - more), int(places[-1]) + more + 1))
    return parts[0], parts[1]


def _cm2(volume: Volume, flags: Flags) -> str:
    _, y, x = volume.grid.spacing_mm
    return f"{np.count_nonzero(flags) * y * x / 100:.1f}"
