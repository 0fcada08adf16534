"""A slice of a volume with its masks, the way a radiologist expects it, whichever way the voxels are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from carina.errors import BadConfig
from carina.report.paint import USUAL, Lettering, Plane, Style, annotate, paint, png
from carina.volume.grid import Grid, Triple
from carina.volume.planes import Sliced
from carina.volume.volume import Mask, Volume

LONGEST_PX = 720


@dataclass(frozen=True, kw_only=True)
class View:
    """A way to look: where picture rows and columns grow to (LPS), and the letters at top, bottom, left and right."""

    down: Triple
    right: Triple
    letters: tuple[str, str, str, str]
    axis: str


VIEWS = {
    "axial": View(down=(0.0, 1.0, 0.0), right=(1.0, 0.0, 0.0), letters=("A", "P", "R", "L"), axis="z"),
    "coronal": View(down=(0.0, 0.0, -1.0), right=(1.0, 0.0, 0.0), letters=("S", "I", "R", "L"), axis="y"),
    "sagittal": View(down=(0.0, 0.0, -1.0), right=(0.0, 1.0, 0.0), letters=("S", "I", "A", "P"), axis="x"),
}
"""Radiological convention: one looks from the feet, the patient's right is on the left; the head is up."""


@dataclass(frozen=True, kw_only=True)
class PlaneLayout:
    """Which array axes of a grid a view shows, and which of them run backwards."""

    normal: int
    rows: int
    columns: int
    flip_rows: bool
    flip_columns: bool

    def plane(self, array: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        """The slice ``index`` along the normal, turned for the view."""
        return self.turn(np.take(array, index, axis=self.normal))

    def plane_of(self, sliced: Sliced, index: int) -> npt.NDArray[Any]:
        """The same of what gives its slices one by one."""
        return self.turn(sliced.plane(self.normal, index))

    def turn(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A slice ``(first remaining axis, second)`` turned for the view."""
        turned = plane.T if self.rows > self.columns else plane
        return turned[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def layout(grid: Grid, view: str) -> PlaneLayout:
    """How a grid's arrays are shown in a view: its nearest axes are taken.

    Raises:
        BadConfig: the view is not known.
    """
    if view not in VIEWS:
        raise BadConfig("overlay.view", f"view {view!r} is not known; use {', '.join(VIEWS)}.")
    axes = np.array(grid.axes)
    along_right, along_down = axes @ VIEWS[view].right, axes @ VIEWS[view].down
    columns = int(np.argmax(np.abs(along_right)))
    along_down[columns] = 0
    rows = int(np.argmax(np.abs(along_down)))
    return PlaneLayout(
        normal=3 - rows - columns,
        rows=rows,
        columns=columns,
        flip_rows=bool(along_down[rows] < 0),
        flip_columns=bool(along_right[columns] < 0),
    )


def overlay_png(
    volume: Volume, lung: Mask | None, lesion: Mask | None, index: int | None = None, view: str = "axial"
) -> bytes:
    """One slice as a PNG: lungs outlined in blue, lesions filled in orange, letters, scale and position.

    ``view`` is ``axial``, ``coronal`` or ``sagittal``; ``index`` counts along the array axis nearest to the view's
    normal, by default the slice with most lesion in the lungs, else most lung, else the middle. Millimetres are square.

    Raises:
        BadConfig: the view is not known or has no slice of that index.
    """
    return png(overlay_image(volume, lung, lesion, index, view))


def overlay_image(
    volume: Volume,
    lung: Mask | None,
    lesion: Mask | None,
    index: int | None = None,
    view: str = "axial",
    *,
    style: Style = USUAL,
) -> Image.Image:
    """The same as an RGB picture, in another style where one is given.

    Raises:
        BadConfig: as ``overlay_png``.
    """
    k = _best(volume, lung, lesion, layout(volume.grid, view).normal) if index is None else index
    return lettered(shown_plane(volume, lung, lesion, k, view), volume.grid, k, view, style)


def shown_plane(volume: Sliced, lung: Sliced | None, lesion: Sliced | None, index: int, view: str) -> Plane:
    """The slice of a view, to be painted.

    Raises:
        BadConfig: as ``overlay_png``.
    """
    shown = layout(volume.grid, view)
    size = volume.grid.shape[shown.normal]
    if not 0 <= index < size:
        raise BadConfig("overlay.index", f"there is no {view} slice {index}; the volume has 0 to {size - 1}.")
    hu = shown.plane_of(volume, index)
    nothing = np.zeros(hu.shape, np.bool_)
    spacing = volume.grid.spacing_mm
    return Plane(
        hu=hu,
        lung=nothing if lung is None else shown.plane_of(lung, index),
        lesion=nothing if lesion is None else shown.plane_of(lesion, index),
        spacing_mm=(spacing[shown.rows], spacing[shown.columns]),
    )


def lettered(plane: Plane, grid: Grid, index: int, view: str, style: Style) -> Image.Image:
    """A slice of a grid painted, with the letters of its view, its position and a scale."""
    picture = paint(plane, LONGEST_PX, style=style)
    axis = VIEWS[view].axis
    line = f"{axis} {position_mm(grid, layout(grid, view).normal, index, axis):.1f} mm   slice {index}"
    lettering = Lettering(letters=VIEWS[view].letters, line=line)
    annotate(picture, lettering, picture.width / plane.size_mm[1], style.letters_across)
    return picture


def position_mm(grid: Grid, normal: int, index: int, axis: str) -> float:
    """Where the middle of a slice lies along a patient axis (``x``, ``y`` or ``z``, LPS)."""
    middle = [(count - 1) / 2 for count in grid.shape]
    middle[normal] = index
    return float(grid.points_mm(middle)["xyz".index(axis)])


def _best(volume: Volume, lung: Mask | None, lesion: Mask | None, normal: int) -> int:
    """The slice with most lesion in the lungs, else most lung, else most lesion, else the middle."""
    shown = [mask.labels > 0 for mask in (lesion, lung) if mask is not None]
    for flags in ([shown[0] & shown[-1]] if len(shown) > 1 else []) + shown[::-1]:
        if flags.any():
            planes = np.moveaxis(flags, normal, 0)
            return int(np.argmax([np.count_nonzero(plane) for plane in planes]))
    return volume.grid.shape[normal] // 2
