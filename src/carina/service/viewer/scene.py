"""Where the pages stand in a volume: one voxel, the three planes through it, and the way to the next slice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from carina.corrections.masks import MaskName, masks_made
from carina.errors import shortened
from carina.report.overlay import VIEWS, layout
from carina.service.viewer.layers import coarse_steps
from carina.service.viewer.opened import OpenedRun
from carina.service.viewer.slices import WINDOWS, Index, clipped, no_voxel
from carina.volume.grid import Grid, Triple

PLANES = tuple(VIEWS)

ONWARDS: Mapping[str, Triple] = {"axial": (0.0, 0.0, -1.0), "coronal": (0.0, 1.0, 0.0), "sagittal": (1.0, 0.0, 0.0)}
"""Where the next slice lies (LPS): to the feet, to the back, to the patient's left."""

_LESION = re.compile(r"lesion-([1-9]\d{0,5})", re.ASCII)
_VOXEL = re.compile(",".join([r"([+-]?\d{1,15}(?:\.\d{0,15})?)"] * 3), re.ASCII)
_SLICE = re.compile(r"\d{1,5}", re.ASCII)

_LONGEST_SAID = 40
"""Characters of what was asked for that a page repeats."""

NO_LESION = "No lesion was marked."
"""What pages say where a network marked nothing."""


@dataclass(frozen=True, kw_only=True)
class ShownPlane:
    """One plane as a page shows it: slice ``index`` of ``count``, the next one being ``index + step``.

    ``across`` and ``down`` say where in the picture the chosen voxel lies, in percent of its width and height.
    """

    name: str
    index: int
    count: int
    step: int
    across: float
    down: float


def chosen_voxel(opened: OpenedRun, query: Mapping[str, str]) -> Index:
    """The voxel that a page is opened at: ``at=lesion-2`` or ``at=z,y,x``, and ``axial=57`` for one plane alone.

    By default that of the largest lesion, else the middle of the lungs, else of the volume; so where there is no such
    lesion, or the text is neither. Of a place outside of the volume it is the nearest voxel.
    """
    return clipped(_wanted(opened, query), opened.images.volume.grid)


def outside_words(opened: OpenedRun, query: Mapping[str, str]) -> str:
    """What a page says where a place was asked for that is not there, beside the one that is shown; else nothing."""
    grid = opened.images.volume.grid
    wanted = _wanted(opened, query)
    at = clipped(wanted, grid)
    if "at" in query and _asked(opened, query["at"]) is None:
        return f"{_no_place(opened, query['at'])} {','.join(map(str, at))} is shown."
    if at == wanted:
        return ""
    return f"There is {no_voxel(grid, wanted)}: the nearest, {','.join(map(str, at))}, is shown."


def _no_place(opened: OpenedRun, at: str) -> str:
    """Why what was asked for is no place of a run."""
    count = len(opened.lesions)
    if _LESION.fullmatch(at) and count:
        return f"There is no {at}: this run has {count} lesion{'s' * (count > 1)}, numbered from the largest."
    if _LESION.fullmatch(at):
        return f"There is no {at}: this run has no marked lesion."
    return f"{shortened(at, _LONGEST_SAID)!r} is no place: expected a voxel as at=z,y,x, or a lesion as at=lesion-1."


def _wanted(opened: OpenedRun, query: Mapping[str, str]) -> Index:
    asked = _asked(opened, query["at"]) if "at" in query else None
    index = list(asked or _usual(opened))
    for plane in PLANES:
        if _SLICE.fullmatch(query.get(plane, "")):
            index[layout(opened.images.volume.grid, plane).normal] = int(query[plane])
    return index[0], index[1], index[2]


def is_unmarked(opened: OpenedRun) -> bool:
    """Whether the run made a lesion mask, and nothing is marked in it."""
    return not opened.lesions and MaskName.LESION in masks_made(opened.run)


def _unvisited(opened: OpenedRun) -> str:
    """What the keys that go from lesion to lesion say where there is none."""
    return f"{NO_LESION if is_unmarked(opened) else 'This run made no lesion mask.'} n and p have nowhere to go."


def _asked(opened: OpenedRun, at: str) -> Index | None:
    """The voxel that a text names, in the volume or not; None where it names none."""
    lesion, voxel = _LESION.fullmatch(at), _VOXEL.fullmatch(at)
    if voxel:
        return round(float(voxel[1])), round(float(voxel[2])), round(float(voxel[3]))
    if lesion and int(lesion[1]) <= len(opened.lesions):
        return opened.lesions[int(lesion[1]) - 1].index
    return None


def _usual(opened: OpenedRun) -> Index:
    if opened.lesions:
        return opened.lesions[0].index
    lung, (planes, rows, columns) = opened.images.lung, opened.images.volume.grid.shape
    areas = [0] if lung is None else [np.count_nonzero(lung.plane(0, index)) for index in range(planes)]
    if lung is None or not any(areas):
        return planes // 2, rows // 2, columns // 2
    z = int(np.argmax(areas))
    y, x = (int(place) for place in np.argwhere(lung.plane(0, z)).mean(axis=0))
    return z, y, x


def shown_planes(grid: Grid, at: Index) -> list[ShownPlane]:
    """The three planes through a voxel."""
    shown = []
    for name in PLANES:
        plane = layout(grid, name)
        step = 1 if float(np.dot(grid.axes[plane.normal], ONWARDS[name])) >= 0 else -1
        shares = [(at[axis] + 0.5) / grid.shape[axis] for axis in (plane.columns, plane.rows)]
        flips = (plane.flip_columns, plane.flip_rows)
        across, down = (100 * (1 - share if flip else share) for share, flip in zip(shares, flips, strict=True))
        shown.append(
            ShownPlane(
                name=name,
                index=at[plane.normal],
                count=grid.shape[plane.normal],
                step=step,
                across=round(across, 3),
                down=round(down, 3),
            )
        )
    return shown


def scene_facts(opened: OpenedRun, base: str, at: Index) -> dict[str, Any]:
    """What the page's script must know: the grid, how each plane is shown, and where the lesions lie."""
    grid = opened.images.volume.grid
    planes = {plane.name: plane for plane in shown_planes(grid, at)}
    layouts = {name: layout(grid, name) for name in PLANES}
    return {
        "base": base,
        "at": at,
        "shape": grid.shape,
        "affine": grid.affine.round(6).tolist(),
        "windows": WINDOWS,
        "marked": opened.images.lung is not None or opened.images.lesion is not None,
        "quartered": coarse_steps(grid) != (1, 1, 1),
        "lesions": [site.index for site in opened.lesions],
        "none": NO_LESION if is_unmarked(opened) else "",
        "unvisited": "" if opened.lesions else _unvisited(opened),
        "planes": {
            name: {
                "normal": one.normal,
                "rows": one.rows,
                "columns": one.columns,
                "flipRows": one.flip_rows,
                "flipColumns": one.flip_columns,
                "step": planes[name].step,
            }
            for name, one in layouts.items()
        },
    }
