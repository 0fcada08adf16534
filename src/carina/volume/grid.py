"""Where voxels lie: a regular grid in patient space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Triple = tuple[float, float, float]
Axes = tuple[Triple, Triple, Triple]

SAME_PLACE_MM = 0.01
"""Two grids are the same when no corner voxel differs by more than this."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A regular grid of voxels in patient space (DICOM's LPS: +x left, +y posterior, +z superior; mm).

    ``shape`` and ``spacing_mm`` are in array order ``(z, y, x)``. ``origin_mm`` is the centre of voxel
    ``[0, 0, 0]`` as ``(x, y, z)``. ``axes`` holds, for the array axes ``z, y, x`` in this order, the unit vector
    in patient space along which the index grows; the three are orthogonal.
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    axes: Axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """The 4x4 matrix from homogeneous index ``(z, y, x, 1)`` to patient space ``(x, y, z, 1)`` in mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(self.axes).T * np.array(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def extent_mm(self) -> Triple:
        """Outer size along ``(z, y, x)``: voxel count times spacing, in mm."""
        z, y, x = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return (z, y, x)

    @property
    def told(self) -> str:
        """Shape, spacing and place, as a message names them."""
        shape = " x ".join(str(count) for count in self.shape)
        spacing = " x ".join(f"{step:g}" for step in self.spacing_mm)
        origin = ", ".join(f"{value:g}" for value in self.origin_mm)
        return f"{shape} voxels of {spacing} mm from ({origin}) mm"

    def points_mm(self, indices: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Patient-space points ``(..., 3)`` in mm of (fractional) indices ``(..., 3)`` in ``(z, y, x)`` order."""
        affine = self.affine
        points: npt.NDArray[np.float64] = np.asarray(indices, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]
        return points

    def indices(self, points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Fractional indices ``(..., 3)`` in ``(z, y, x)`` order of patient-space points ``(..., 3)`` in mm."""
        inverse = np.linalg.inv(self.affine)
        found: npt.NDArray[np.float64] = np.asarray(points_mm, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return found

    def same_place(self, other: Grid, *, tolerance_mm: float = SAME_PLACE_MM) -> bool:
        """Whether both grids have one shape and every corner voxel lies within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(self.shape) - 1)
        return bool(np.abs(self.points_mm(corners) - other.points_mm(corners)).max() <= tolerance_mm)
