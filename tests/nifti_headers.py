"""NIfTI headers made by hand, and the same file as nibabel, ITK and Carina read it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from carina.volume.arrays import Doubles
from carina.volume.files import read_map, read_volume_header
from carina.volume.nifti import FIRST

SIZE = (4, 5, 6)
STORED = np.arange(-900, -900 + 120 * 10, 10, dtype=np.int16)


def header(layout: np.dtype[Any] = FIRST, **changes: Any) -> npt.NDArray[Any]:
    """A header for 4 x 5 x 6 voxels of 0.7 x 0.8 x 2.5 mm, by its qform; ``changes`` sets fields."""
    fields = np.zeros((), layout)
    plain = {
        "sizeof_hdr": layout.itemsize,
        "dim": [3, *SIZE, 1, 1, 1, 1],
        "datatype": 4,
        "bitpix": 16,
        "pixdim": [1, 0.7, 0.8, 2.5, 0, 0, 0, 0],
        "vox_offset": layout.itemsize + 4,
        "scl_slope": 1,
        "xyzt_units": 2,
        "qform_code": 1,
        "quatern": [0, 0, 1],
        "qoffset": [10, 20, 30],
        "magic": b"n+1" if layout is FIRST else b"n+2\0\r\n\x1a\n",
    }
    for name, value in {**plain, **changes}.items():
        fields[name] = value
    return fields


SFORM = {"sform_code": 1, "srow": [[-0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30]]}
MIRRORED = {"sform_code": 1, "srow": [[0.7, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30]]}
ONLY = {"qform_code": 0}


def write(
    path: Path, fields: npt.NDArray[Any] | None = None, data: bytes = STORED.tobytes(), extension: bytes = bytes(4)
) -> Path:
    content = (header() if fields is None else fields).tobytes() + extension + data
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def by_nibabel(path: Path) -> tuple[Doubles, Doubles]:
    """Index to LPS, and the values, x first."""
    image = nibabel.load(path)
    values = np.asarray(image.dataobj, dtype=np.float64)
    return (np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine)[:3], values.reshape(values.shape[:3])


def by_itk(path: Path) -> tuple[Doubles, Doubles]:
    image = sitk.ReadImage(str(path))
    steps = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    return np.column_stack([steps, np.array(image.GetOrigin())]), values.transpose(2, 1, 0)


def readers(layout: np.dtype[Any]) -> list[Callable[[Path], tuple[Doubles, Doubles]]]:
    """SimpleITK's ITK does not read NIfTI-2."""
    return [by_nibabel, by_itk] if layout is FIRST else [by_nibabel]


def by_carina(path: Path) -> tuple[Doubles, Doubles]:
    affine = read_volume_header(path).grid.affine[:3]
    return affine[:, [2, 1, 0, 3]], read_map(path).values.astype(np.float64).transpose(2, 1, 0)


def far(a: Doubles, b: Doubles) -> float:
    """How far apart two matrices place the farthest corner, in mm."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*(n - 1 for n in SIZE), 1]
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())
