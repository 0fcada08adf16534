"""Voxels with their grid: a CT volume, a labelled mask and a map of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from carina.volume.arrays import HU, Flags
from carina.volume.grid import Grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """CT voxels on a grid.

    ``hu`` is ``(z, y, x)``, int16, Hounsfield units. ``uid`` is the source's Series Instance UID, or a name for
    what came from a file without one; outputs are named by it. ``warnings`` says what the reader had to do
    (tilt corrected, spacing evened) in sentences for the manifest.

    Raises:
        ValueError: the array's shape is not the grid's, or its type is not int16.
    """

    hu: npt.NDArray[np.int16]
    grid: Grid
    uid: str
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.shape != self.grid.shape:
            raise ValueError(f"voxels have shape {self.hu.shape}, their grid {self.grid.shape}")
        if self.hu.dtype != np.int16:
            raise ValueError(f"HU voxels must be int16, not {self.hu.dtype}")

    def plane(self, axis: int, index: int) -> HU:
        """The slice ``index`` along an array axis: the two that remain, in their order."""
        plane: HU = np.take(self.hu, index, axis=axis)
        return plane


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Labelled voxels on a volume's grid.

    ``labels`` is ``(z, y, x)``, uint8; 0 is background, ``names`` gives a word for every other value that can
    occur. ``uid`` is that of the volume it was made from. ``made_by`` names the bundle as ``name version sha256``,
    empty when no network was involved. ``refusals`` say in sentences why the scan can't be a chest CT, where a check
    found that; masks that are derived from this one keep them.

    Raises:
        ValueError: the array's shape is not the grid's, or its type is not uint8.
    """

    labels: npt.NDArray[np.uint8]
    grid: Grid
    names: Mapping[int, str]
    uid: str
    made_by: str = ""
    warnings: tuple[str, ...] = field(default=())
    refusals: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.labels.shape != self.grid.shape:
            raise ValueError(f"labels have shape {self.labels.shape}, their grid {self.grid.shape}")
        if self.labels.dtype != np.uint8:
            raise ValueError(f"labels must be uint8, not {self.labels.dtype}")

    def plane(self, axis: int, index: int) -> Flags:
        """What is labelled in the slice ``index`` along an array axis: the two that remain, in their order."""
        plane: Flags = np.take(self.labels, index, axis=axis) > 0
        return plane

    @property
    def is_empty(self) -> bool:
        """Whether nothing is labelled."""
        return not self.labels.any()

    @property
    def told(self) -> tuple[str, ...]:
        """What must be said wherever the mask is shown: refusals and warnings, each once."""
        return tuple(dict.fromkeys((*self.refusals, *self.warnings)))

    def volume_ml(self, label: int | None = None) -> float:
        """Volume in ml of one label, or of everything labelled."""
        count = np.count_nonzero(self.labels if label is None else self.labels == label)
        return float(count) * self.grid.voxel_ml


@dataclass(frozen=True, kw_only=True, eq=False)
class ScalarMap:
    """A number for each voxel of a volume's grid.

    ``values`` is ``(z, y, x)``, float32, in ``unit``; ``quantity`` says in words what they are. ``uid`` is that of the
    volume it was made from, ``made_by`` names the bundle as ``name version sha256``.

    Raises:
        ValueError: the array's shape is not the grid's, or its type is not float32.
    """

    values: npt.NDArray[np.float32]
    grid: Grid
    quantity: str
    unit: str
    uid: str
    made_by: str = ""

    def __post_init__(self) -> None:
        if self.values.shape != self.grid.shape:
            raise ValueError(f"values have shape {self.values.shape}, their grid {self.grid.shape}")
        if self.values.dtype != np.float32:
            raise ValueError(f"values must be float32, not {self.values.dtype}")
