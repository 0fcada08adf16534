"""Key slices as pictures on a page, as a radiologist expects them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from carina.measure.findings import KeySlice
from carina.report import layout as page
from carina.report.facts import ReportFacts
from carina.report.numbers import MINUS
from carina.report.overlay import layout as plane_layout
from carina.report.overlay import position_mm
from carina.report.paint import WINDOW_HU, Lettering, Plane, annotate, jpeg, paint

PICTURE_PX = 480
"""Longer side of a picture: about 220 to the inch."""

ACROSS = 3
"""Pictures side by side."""

CROP_MM = 14.0
"""What is shown around the lungs."""


def key_slice_pictures(title: str, slices: Sequence[KeySlice], facts: ReportFacts) -> list[Any]:
    """A heading, the slices in rows, and their legend; nothing where there are none."""
    if not slices:
        return []
    window = lung_window(slices)
    pictures = [picture_of(key, window, facts, PICTURE_PX) for key in slices]
    rows = [pictures[start : start + ACROSS] for start in range(0, len(pictures), ACROSS)]
    legend = page.legend(how_shown(slices, facts), with_lesion=any(key.lesion.any() for key in slices))
    return page.picture_rows(title, rows, legend)


def how_shown(slices: Sequence[KeySlice], facts: ReportFacts) -> str:
    """The window, and which way one looks."""
    low, high = (f"{value:.0f}".replace("-", MINUS) for value in WINDOW_HU)
    window = f"{low} to {high} HU; " if slices[0].hu is not None else ""
    convention = "seen from the feet: the patient's right (R) is on the left" if facts.grid is not None else ""
    return f"{window}{convention}"


def lung_window(slices: Sequence[KeySlice]) -> tuple[slice, slice]:
    """One window ``(rows, columns)`` around the lungs and lesions of all slices; everything where there are none."""
    shown = np.any([key.lung | key.lesion for key in slices], axis=0)
    if not shown.any():
        return slice(0, shown.shape[0]), slice(0, shown.shape[1])
    windows = []
    for axis, step in ((1, slices[0].spacing_mm[0]), (0, slices[0].spacing_mm[1])):
        places = np.flatnonzero(shown.any(axis=axis))
        more = round(CROP_MM / step)
        windows.append(slice(max(0, int(places[0]) - more), int(places[-1]) + more + 1))
    return windows[0], windows[1]


def picture_of(
    key: KeySlice, window: tuple[slice, slice], facts: ReportFacts, longest_px: int, limit: float = 1.0
) -> tuple[bytes, tuple[int, int], str]:
    """A slice as JPEG, its size in pixels (width, height), and its caption; a saliency of ``limit`` covers most."""
    view = None if facts.grid is None else plane_layout(facts.grid, "axial")
    if view is not None and view.normal != 0:
        view = None

    def turned(array: Any) -> Any:
        return array[window] if view is None else view.turn(array[window])

    down_mm, right_mm = key.spacing_mm
    is_transposed = view is not None and view.rows > view.columns
    plane = Plane(
        hu=None if key.hu is None else turned(key.hu),
        lung=turned(key.lung),
        lesion=turned(key.lesion),
        saliency=None if key.saliency is None else turned(key.saliency) / limit,
        spacing_mm=(right_mm, down_mm) if is_transposed else (down_mm, right_mm),
    )
    picture = paint(plane, longest_px)
    letters = ("", "", "R", "L") if view is not None else ("", "", "", "")
    annotate(picture, Lettering(letters=letters, line=""), picture.width / plane.size_mm[1], letters_across=26)
    return jpeg(picture), picture.size, _caption(key, facts if view is not None else replace(facts, grid=None))


def _caption(key: KeySlice, facts: ReportFacts) -> str:
    """Which slice it is, where it lies if that is known, and how much of it is lesion."""
    parts = [f"Slice {key.index}"]
    if facts.grid is not None:
        parts[0] += f", z {position_mm(facts.grid, 0, key.index, 'z'):.1f} mm".replace("-", MINUS)
    area_cm2 = float(np.count_nonzero(key.lesion)) * key.spacing_mm[0] * key.spacing_mm[1] / 100
    if area_cm2:
        parts.append(f"lesion {area_cm2:.1f} cm\u00b2" if area_cm2 >= 0.05 else "lesion < 0.1 cm\u00b2")
    return "; ".join(parts)
