"""The masks of a run that a reader may correct, and what stands beside them in the run's folder."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from carina.api.result import Run
from carina.errors import BadConfig
from carina.operators.ports import MaskPort
from carina.pipeline.ports import load_folder
from carina.volume.volume import Mask

CORRECTIONS = "corrections"
"""In a run's folder: journals and finished corrections; a run that is made again leaves it alone."""


class MaskName(StrEnum):
    """The masks that can be corrected."""

    LUNG = "lung"
    LESION = "lesion"


def layer_named(name: str) -> MaskName:
    """The layer of a name.

    Raises:
        BadConfig: ``corrections.layer``.
    """
    try:
        return MaskName(name)
    except ValueError as error:
        raise BadConfig("corrections.layer", f"{name!r} is no mask; expected {', '.join(MaskName)}.") from error


def masks_made(run: Run) -> tuple[MaskName, ...]:
    """The masks that a run made, in the order in which pages show them."""
    return tuple(name for name in MaskName if any((run.folder / name).glob("*.mhd")))


def network_mask(run: Run, layer: MaskName) -> Mask:
    """The mask as the run left it, with its labels' names and who made it.

    Raises:
        BadConfig: ``run.no-image``, the run made none.
    """
    if layer not in masks_made(run):
        raise BadConfig("run.no-image", f"{run.folder / layer}: this run made no {layer} mask to correct.")
    found: Mask = load_folder(MaskPort, run.folder / layer)
    return found


def strokes_file(run: Path, layer: MaskName) -> Path:
    """Where a mask's strokes are."""
    return run / CORRECTIONS / f"{layer}.strokes"


def decisions_file(run: Path) -> Path:
    """Where it is said what readers accepted and rejected."""
    return run / CORRECTIONS / "decisions"
