"""What the header of a volume file says, whatever its format: where its voxels lie in space, and where in a file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from carina.errors import BadSeries, one_line
from carina.volume.arrays import Doubles
from carina.volume.grid import Axes, Grid, Triple
from carina.volume.plausible import check_grid

ORTHOGONAL = 1e-3
"""Direction cosines are orthogonal within this."""

MOST_VOXELS = 1 << 30
"""1024 slices of 1024 x 1024: 2 GiB of HU. More is refused before memory is asked for."""

UNTOUCHED_VOXELS = 128
"""So many voxels along an axis, all of 1 mm and at the origin: most likely nobody ever set the geometry."""

MOST_QUOTED = 120
"""Characters of a header's text that a message repeats."""

UNITS_MM = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 0.001, "micron": 0.001, "microns": 0.001, "µm": 0.001}

FROM = str.maketrans("RLAPIS", "LRPASI")
"""Turns the letters of where axes run to into those of where they come from, which is how ITK tells them."""

ByteOrder = Literal["<", ">", "="]
"""A byte order: little, big, this machine's."""


class Packing(StrEnum):
    """How voxels are packed."""

    RAW = "raw"
    DEFLATE = "deflate"
    """gzip or zlib, whichever is found."""
    BZIP2 = "bzip2"
    TEXT = "text"
    """Decimal numbers with white space between them."""


@dataclass(frozen=True, kw_only=True)
class StoredVoxels:
    """Where voxels lie in a file, x fastest: ``skip`` bytes after what is unpacked from ``start`` on.

    A stored value becomes ``value * slope + intercept``. ``plane_bytes`` is the size of one slice: what is left over
    behind the voxels is a slip if it is less, and a header that does not belong to them otherwise.
    """

    path: Path
    dtype: np.dtype[Any]
    count: int
    plane_bytes: int
    packing: Packing = Packing.RAW
    start: int = 0
    skip: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def voxel_bytes(self) -> int:
        """Bytes of all voxels, unpacked; for text, the least that so many numbers take."""
        return self.count * (2 if self.packing is Packing.TEXT else self.dtype.itemsize)


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """A volume file without its voxels; ``warnings`` says in sentences what its header leaves open."""

    grid: Grid
    voxels: StoredVoxels
    warnings: tuple[str, ...] = ()

    @property
    def voxel_type(self) -> str:
        """The type of a stored value in words: ``16-bit signed integer``."""
        dtype = self.voxels.dtype
        kind = {"i": "signed integer", "u": "unsigned integer", "f": "float"}[dtype.kind]
        return f"{8 * dtype.itemsize}-bit {kind}"


def bad(path: Path, what: str, words: str) -> BadSeries:
    """The error that a file can't be used: code ``file.`` and ``what``, its name before the words."""
    return BadSeries(f"file.{what}", f"{short(path.name)}: {words}")


def short(text: str, most: int = MOST_QUOTED) -> str:
    """A text out of a header as a message quotes it: printable, and its beginning if it is long."""
    text = "".join(sign if sign.isprintable() else " " for sign in one_line(text))
    return text if len(text) <= most else f"{text[:most]} ..."


def placed(path: Path, size: Sequence[int], affine: Doubles, *, unit_mm: float = 1.0) -> Grid:
    """The grid of ``size`` voxels along ``(x, y, z)``, ``affine`` from index to LPS in units of ``unit_mm``.

    Raises:
        BadSeries: ``file.not-3d``, ``file.spacing``, ``file.sheared`` or ``file.too-large``.
    """
    check_size(path, size)
    with np.errstate(all="ignore"):
        affine = affine * unit_mm
        spacing = np.linalg.norm(affine[:, :3], axis=0)
        directions = affine[:, :3] / spacing
        slant = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if not np.isfinite(affine).all() or not (spacing > 0).all():
        seen = " x ".join(f"{s:g}" for s in spacing)
        raise bad(path, "spacing", f"voxels of {seen} mm (x, y, z), expected numbers above 0; correct the header.")
    if slant > ORTHOGONAL:
        raise bad(path, "sheared", "its axes are sheared, expected orthogonal ones; resample it first.")
    x, y, z = (triple(directions[:, k]) for k in range(3))
    axes: Axes = (z, y, x)
    grid = Grid(
        shape=(size[2], size[1], size[0]),
        spacing_mm=triple(spacing[::-1]),
        origin_mm=triple(affine[:, 3]),
        axes=axes,
    )
    check_grid(grid, path.name, origin="file")
    return grid


def check_size(path: Path, size: Sequence[int], components: int = 1) -> None:
    """Refuse what is no single volume of three dimensions, or has more voxels than are ever read."""
    if len(size) != 3 or min(size) < 1 or components != 1:
        per_voxel = f" with {components} values each" if components != 1 else ""
        seen = short(" x ".join(map(str, size)))
        raise bad(path, "not-3d", f"holds {seen} voxels{per_voxel}, expected one 3D volume.")
    count = math.prod(size)
    if count > MOST_VOXELS:
        raise bad(path, "too-large", f"its header claims {count} voxels; at most {MOST_VOXELS} are read.")


def without_ones(size: Sequence[int]) -> list[int]:
    """The size without axes of one voxel behind the third."""
    kept = list(size)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    return kept


def doubts(grid: Grid, path: Path) -> tuple[str, ...]:
    """A warning where the geometry looks as if nobody had ever set it."""
    is_unit = all(s == 1.0 for s in grid.spacing_mm) and not any(grid.origin_mm)
    if is_unit and max(grid.shape) >= UNTOUCHED_VOXELS:
        return (f"{path.name}: voxels of exactly 1 mm at the origin: its geometry may never have been set.",)
    return ()


def file_beside(header: Path, name: str) -> Path:
    """The data file that a header names, which lies in the header's folder or below it.

    Raises:
        BadSeries: ``file.outside``, it lies elsewhere; it is not opened.
    """
    folder = Path(os.path.abspath(header.parent))  # noqa: PTH100  # links are not followed: a store may use them
    file = Path(os.path.normpath(folder / name))
    if file == folder or not file.is_relative_to(folder):
        raise bad(
            header,
            "outside",
            f"names the data file {short(name)!r}, which is not in its own folder; put them together.",
        )
    return file


def ways(directions: Doubles) -> str:
    """The letters of the way each axis runs, ``LPS`` for a unit matrix: columns in LPS, the nearest of oblique ones."""
    nearest = np.abs(directions).argmax(axis=0)
    return "".join(("RL", "AP", "IS")[k][int(directions[k, axis] > 0)] for axis, k in enumerate(nearest))


def triple(vector: npt.ArrayLike) -> Triple:
    """Three plain numbers, none of them -0."""
    x, y, z = (float(v) + 0.0 for v in np.asarray(vector))
    return (x, y, z)
