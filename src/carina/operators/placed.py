"""What lies on a grid must lie on that of its CT: asked of all that an operator is given, and of what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from carina.dicom.geometry import plan_volume
from carina.dicom.series import Series
from carina.operators.ports import SaliencyPort, Scene
from carina.volume.grid import Grid
from carina.volume.volume import Mask, ScalarMap, Volume


def misplaced(values: Mapping[str, object]) -> str:
    """Which of some values, by the paths of their ports, lies on a grid that is none of the CTs', in words.

    CTs are volumes, and series as they are read; without any, masks and maps lie on one grid. Empty where all is well.
    """
    shown = _grids(values, _shown)
    known = _grids(values, _scanned) or shown[:1]
    for what, grid in shown:
        if not any(grid.same_place(other) for _, other in known):
            lying = " and ".join(f"{name} ({other.told})" for name, other in known)
            return f"{what} ({grid.told}) does not lie on the grid of {lying}"
    return ""


def _grids(values: Mapping[str, object], of: Callable[[object], Iterator[tuple[str, Grid]]]) -> list[tuple[str, Grid]]:
    return [(f"the {what} at {path}", grid) for path, value in values.items() for what, grid in of(value)]


def _scanned(value: object) -> Iterator[tuple[str, Grid]]:
    """The grid of a CT."""
    match value:
        case Volume():
            yield "volume", value.grid
        case Series():
            yield "series", plan_volume(value).grid
        case Scene():
            yield "scene's volume", value.volume.grid


def _shown(value: object) -> Iterator[tuple[str, Grid]]:
    """The grids of what belongs to a CT."""
    match value:
        case Mask():
            yield "mask", value.grid
        case ScalarMap():
            yield "map", value.grid
        case SaliencyPort(map=ScalarMap() as found):
            yield "saliency", found.grid
        case Scene():
            yield from _shown(value.shown)
