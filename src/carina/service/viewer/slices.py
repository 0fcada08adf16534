"""Slices as the server draws them: which, how, and what is said of them to who can't see them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from carina.errors import BadConfig
from carina.report.numbers import PAGE_MINUS
from carina.report.overlay import VIEWS, PlaneLayout, layout, lettered, position_mm, shown_plane
from carina.report.paint import Style, png
from carina.service.viewer.opened import MOST_SHARE, Images, OpenedRun
from carina.volume.grid import Grid
from carina.volume.planes import Sliced

Index = tuple[int, int, int]
"""A voxel, ``(z, y, x)``."""

WINDOWS: Mapping[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "aerated": (-1000.0, -400.0),
    "mediastinum": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
}
"""Presets in HU: the lung window of the reports, a narrow one in which ground glass stands out, soft tissue, bone."""

ACROSS_A_PANE = 27
"""Larger than on a page of a report: two of the three pictures are shown at less than half their size."""

WIDEST_HU = 32768.0

_CUSTOM = re.compile(r"(-?\d{1,5})(?:,|\.\.)(-?\d{1,5})", re.ASCII)


class LayerStyle(StrEnum):
    """How a mask is drawn."""

    OFF = "off"
    OUTLINE = "outline"
    FILL = "fill"


LAYERS = ("lung", "lesion")
SALIENCY = "saliency"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How slices are drawn: a window's name or its two ends, each mask's way, and the fill's opacity in percent.

    With ``saliency`` lesions are left out, whose colour could be taken for it.
    """

    window: str = "lung"
    lung: LayerStyle = LayerStyle.OUTLINE
    lesion: LayerStyle = LayerStyle.FILL
    opacity: int = 35
    saliency: bool = False

    @classmethod
    def asked(cls, query: Mapping[str, str]) -> Drawing:
        """What the query of a URL asks for: ``window=lung&overlay=lung,lesion-fill&opacity=35``.

        ``overlay`` lists the masks that are outlined, or with ``-fill`` filled too, and ``saliency``; ``none`` draws
        nothing. A page's form has ``lung``, ``lesion`` and ``saliency`` instead.

        Raises:
            BadConfig: ``viewer.window``, ``viewer.overlay`` or ``viewer.opacity``: the message lists what is known.
        """
        window = query.get("window", "lung")
        _ = window_hu(window)
        words = [word for word in query.get("overlay", "").split(",") if word not in ("", "none", SALIENCY)]
        drawn = _overlay(words) if "overlay" in query else {}
        for layer in LAYERS:
            if layer in query:
                drawn[layer] = _drawn(query[layer])
        opacity = query.get("opacity", "35")
        if not opacity.isascii() or not opacity.isdigit() or int(opacity) > 100:
            raise BadConfig("viewer.opacity", f"opacity {opacity!r} is no whole number from 0 to 100.")
        saliency = SALIENCY in query or SALIENCY in query.get("overlay", "").split(",")
        return cls(window=window, opacity=int(opacity), saliency=saliency, **drawn)

    @property
    def query(self) -> str:
        """The same as the query of a URL; only what is in it can change a picture."""
        overlay = [
            f"{layer}-fill" if drawn is LayerStyle.FILL else layer
            for layer, drawn in zip(LAYERS, (self.lung, self.lesion), strict=True)
            if drawn is not LayerStyle.OFF
        ] + [SALIENCY] * self.saliency
        return f"window={self.window}&overlay={','.join(overlay) or 'none'}&opacity={self.opacity}"


def window_hu(window: str) -> tuple[float, float]:
    """The two ends of a window: a preset's name, or ``LOW,HIGH``.

    Raises:
        BadConfig: ``viewer.window``.
    """
    if window in WINDOWS:
        return WINDOWS[window]
    found = _CUSTOM.fullmatch(window)
    low, high = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    if not -WIDEST_HU <= low < high <= WIDEST_HU:
        raise BadConfig("viewer.window", f"window {window!r}: expected {', '.join(WINDOWS)}, or two HU as -1000,400.")
    return low, high


def _drawn(word: str) -> LayerStyle:
    try:
        return LayerStyle(word)
    except ValueError as error:
        known = ", ".join(LayerStyle)
        raise BadConfig("viewer.overlay", f"a mask can't be drawn as {word!r}; expected {known}.") from error


def _overlay(words: Sequence[str]) -> dict[str, LayerStyle]:
    drawn = dict.fromkeys(LAYERS, LayerStyle.OFF)
    for word in words:
        layer = word.removesuffix("-fill")
        if layer not in drawn:
            raise BadConfig("viewer.overlay", f"overlay {word!r} is not known; expected none, or {_overlay_words()}.")
        drawn[layer] = LayerStyle.OUTLINE if word == layer else LayerStyle.FILL
    return drawn


def _overlay_words() -> str:
    return ", ".join(f"{layer}, {layer}-fill" for layer in LAYERS)


def slice_png(opened: OpenedRun, plane: str, index: int, drawing: Drawing) -> bytes:
    """A slice as PNG with letters, scale and position, the way a radiologist expects it.

    Raises:
        BadConfig: ``overlay.view`` or ``overlay.index``.
    """
    style = Style(
        window_hu=window_hu(drawing.window),
        lung_fill=drawing.opacity / 100 if drawing.lung is LayerStyle.FILL else 0.0,
        lesion_fill=drawing.opacity / 100 if drawing.lesion is LayerStyle.FILL else 0.0,
        letters_across=ACROSS_A_PANE,
    )
    images, saliency = opened.images, opened.saliency if drawing.saliency else None
    lung = None if drawing.lung is LayerStyle.OFF else images.lung
    lesion = None if drawing.lesion is LayerStyle.OFF or saliency else images.lesion
    grid = images.volume.grid
    shown = shown_plane(images.volume, lung, lesion, index, plane)
    if saliency:
        shares = layout(grid, plane).plane(saliency.shares, index).astype(np.float32) / MOST_SHARE
        shown = replace(shown, saliency=np.ascontiguousarray(shares))
    return png(lettered(shown, grid, index, plane, style))


def slice_words(images: Images, plane: str, index: int) -> str:
    """What a slice shows, in words: where it lies, which way one looks, how much lung and lesion it cuts.

    Raises:
        BadConfig: ``overlay.view``.
    """
    grid = images.volume.grid
    shown = layout(grid, plane)
    axis = VIEWS[plane].axis
    place = f"{axis} {position_mm(grid, shown.normal, index, axis):.1f} mm".replace("-", PAGE_MINUS)
    words = [f"{plane.capitalize()} slice {index} of 0 to {grid.shape[shown.normal] - 1}, {place}, {SEEN[plane]}."]
    areas = [_area_cm2(mask, shown, index) for mask in (images.lung, images.lesion)]
    if areas[0] is not None:
        words.append(f"Lung {areas[0]:.1f} cm\u00b2." if areas[0] else "No lung here.")
    if areas[1] is not None:
        words.append(f"Lesion {_least(areas[1])} cm\u00b2." if areas[1] else "No lesion marked here.")
    return " ".join(words)


SEEN = {
    "axial": "seen from the feet, the patient's right is on the left",
    "coronal": "seen from the front, the patient's right is on the left, the head is up",
    "sagittal": "the patient's front is on the left, the head is up",
}
"""The convention of each view in words."""


def _area_cm2(mask: Sliced | None, shown: PlaneLayout, index: int) -> float | None:
    if mask is None:
        return None
    spacing = mask.grid.spacing_mm
    count = np.count_nonzero(mask.plane(shown.normal, index))
    return float(count) * spacing[shown.rows] * spacing[shown.columns] / 100


def _least(area_cm2: float) -> str:
    return f"{area_cm2:.1f}" if area_cm2 >= 0.05 else "< 0.1"


def place_words(images: Images, index: Index) -> str:
    """Where a voxel lies, its HU, and what is marked there."""
    grid, (z, y, x) = images.volume.grid, index
    place = " ".join(f"{axis} {value:.1f}" for axis, value in zip("xyz", grid.points_mm(index), strict=True))
    marked = [layer for layer in LAYERS if (mask := getattr(images, layer)) is not None and mask.plane(0, z)[y, x]]
    what = f", {marked[-1]}" if marked else ""
    return f"{images.volume.plane(0, z)[y, x]} HU at {place} mm{what}".replace("-", PAGE_MINUS)


def clipped(index: tuple[int, ...], grid: Grid) -> Index:
    """The voxel of a grid that is nearest to an index."""
    z, y, x = (min(max(step, 0), count - 1) for step, count in zip(index, grid.shape, strict=True))
    return z, y, x


def voxel_in(grid: Grid, index: tuple[int, ...]) -> Index:
    """A voxel of a grid.

    Raises:
        BadConfig: ``viewer.voxel``, it has no such one.
    """
    if (at := clipped(index, grid)) != index:
        raise BadConfig("viewer.voxel", f"there is {no_voxel(grid, index)}.")
    return at


def no_voxel(grid: Grid, index: tuple[int, ...]) -> str:
    """That a grid has no such voxel, and which it has, behind ``There is``."""
    shape = " \u00d7 ".join(map(str, grid.shape))
    return f"no voxel {','.join(map(str, index))} in this scan of {shape} voxels (z,y,x, from 0)"
