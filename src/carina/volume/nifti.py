"""NIfTI-1 and NIfTI-2 files, single (``.nii``, ``.nii.gz``) or in pairs (``.hdr`` and ``.img``).

After the standards (https://nifti.nimh.nih.gov, nifti1.h and nifti2.h). Where nibabel and ITK read different places or
values out of one header, the file is read with a warning or refused (``docs/reading.md`` has the table).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from carina.errors import BadSeries
from carina.volume.arrays import Doubles
from carina.volume.header import (
    Packing,
    StoredVoxels,
    VolumeHeader,
    bad,
    check_size,
    doubts,
    placed,
    ways,
    without_ones,
)
from carina.volume.voxels import check_room, first_bytes, is_gzip

NIFTI_HEADER_BYTES = 540


def _layout(size: int, fields: Mapping[str, tuple[int, Any]]) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": list(fields),
            "offsets": [offset for offset, _ in fields.values()],
            "formats": [form for _, form in fields.values()],
            "itemsize": size,
        }
    )


FIRST = _layout(
    348,
    {
        "sizeof_hdr": (0, "<i4"),
        "dim": (40, ("<i2", 8)),
        "datatype": (70, "<i2"),
        "bitpix": (72, "<i2"),
        "pixdim": (76, ("<f4", 8)),
        "vox_offset": (108, "<f4"),
        "scl_slope": (112, "<f4"),
        "scl_inter": (116, "<f4"),
        "xyzt_units": (123, "u1"),
        "qform_code": (252, "<i2"),
        "sform_code": (254, "<i2"),
        "quatern": (256, ("<f4", 3)),
        "qoffset": (268, ("<f4", 3)),
        "srow": (280, ("<f4", (3, 4))),
        "magic": (344, "S4"),
    },
)
"""The fields of nifti1.h that are used here."""

SECOND = _layout(
    540,
    {
        "sizeof_hdr": (0, "<i4"),
        "magic": (4, "S8"),
        "datatype": (12, "<i2"),
        "bitpix": (14, "<i2"),
        "dim": (16, ("<i8", 8)),
        "pixdim": (104, ("<f8", 8)),
        "vox_offset": (168, "<i8"),
        "scl_slope": (176, "<f8"),
        "scl_inter": (184, "<f8"),
        "qform_code": (344, "<i4"),
        "sform_code": (348, "<i4"),
        "quatern": (352, ("<f8", 3)),
        "qoffset": (376, ("<f8", 3)),
        "srow": (400, ("<f8", (3, 4))),
        "xyzt_units": (500, "<i4"),
    },
)
"""The fields of nifti2.h that are used here."""

VOXEL_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COMPONENTS = {32: 2, 128: 3, 1792: 2, 2304: 4}
"""Complex numbers and colours."""

UNIT_BITS = 7
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
UNIT_NAMES = {1: "metres", 3: "micrometres"}

SCANNER = 1
"""The code of coordinates as the scanner has them."""
LAST_CODE = 5

LPS = np.array([[-1.0], [-1.0], [1.0]])
"""NIfTI's x grows to the right and y to the front, DICOM's to the left and back."""

SAME_FORM_MM = 0.05
"""A qform and an sform agree when no corner of the volume differs by more: quaternions are rounded."""

SAME_WAY = 0.7
"""Axes of both forms run the same way when their cosine is more: less than 45 degrees."""

SAME_SPACING = 0.02
"""Relative difference between sform and pixdim that is rounding or measuring, and no contradiction."""
ROUNDED_SPACING = 1e-3


def read_nifti(path: Path) -> VolumeHeader:
    """Read and check a header.

    Raises:
        BadSeries: it is no NIfTI, is damaged, contradicts itself, or claims what the file can't hold.
    """
    is_pair = path.name.lower().endswith(".hdr")
    header = _fields(path, first_bytes(path, NIFTI_HEADER_BYTES))
    size = _size(path, header)
    voxels, warnings = _voxels(path, header, size, is_pair=is_pair)
    affine, unit_mm, more = _affine(path, header, size)
    grid = placed(path, size, affine * LPS, unit_mm=unit_mm)
    check_room(voxels)
    return VolumeHeader(grid=grid, voxels=voxels, warnings=(*warnings, *more, *doubts(grid, path)))


def _fields(path: Path, start: bytes) -> Any:
    """The header's fields, whichever version and byte order it has."""
    for layout in (FIRST, SECOND):
        for order in ("<", ">"):
            ordered = layout.newbyteorder(order)
            if len(start) < layout.itemsize:
                continue
            fields = np.frombuffer(start, ordered, 1)[0]
            if fields["sizeof_hdr"] == layout.itemsize:
                return _with_magic(path, fields)
    raise bad(path, "unreadable", "is no NIfTI file, or its header is cut short or damaged; convert it again.")


def _with_magic(path: Path, fields: Any) -> Any:
    magic = bytes(fields["magic"])
    if magic[:3] in (b"n+1", b"ni1", b"n+2", b"ni2"):
        return fields
    if not magic:
        words = "is an Analyze 7.5 file, which does not say where left and right are; convert it to NIfTI."
        raise bad(path, "orientation", words)
    raise bad(path, "unreadable", f"its magic is {magic!r}, expected NIfTI's n+1 or ni1; convert it again.")


def _size(path: Path, header: Any) -> list[int]:
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise bad(path, "unreadable", f"its header claims {dim[0]} dimensions (dim[0]), expected 3; convert it again.")
    size = without_ones(dim[1 : dim[0] + 1])
    check_size(path, size, COMPONENTS.get(int(header["datatype"]), 1))
    return size


def _voxels(path: Path, header: Any, size: list[int], *, is_pair: bool) -> tuple[StoredVoxels, list[str]]:
    code = int(header["datatype"])
    if code not in VOXEL_TYPES:
        raise bad(path, "unreadable", f"its voxels are of type {code} (datatype), which is not read; convert it.")
    dtype = np.dtype(VOXEL_TYPES[code]).newbyteorder(header.dtype["dim"].base.byteorder)
    data = _image_of(path) if is_pair else path
    slope, intercept, warnings = _scaling(path, header)
    voxels = StoredVoxels(
        path=data,
        dtype=dtype,
        count=math.prod(size),
        plane_bytes=size[0] * size[1] * dtype.itemsize,
        packing=Packing.DEFLATE if is_gzip(data) else Packing.RAW,
        skip=_offset(path, header, is_pair=is_pair),
        slope=slope,
        intercept=intercept,
    )
    return voxels, warnings


def _image_of(path: Path) -> Path:
    stem = path.name[:-4]
    names = (f"{stem}.img", f"{stem}.img.gz", f"{stem}.IMG")
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), path.with_name(names[0]))


def _offset(path: Path, header: Any, *, is_pair: bool) -> int:
    """Bytes before the voxels (``vox_offset``): in a single file, header and extensions."""
    told = float(header["vox_offset"])
    least = 0 if is_pair else header.dtype.itemsize + 4
    if not (math.isfinite(told) and told >= least and told == int(told)):
        words = f"its voxels begin at byte {told:g} (vox_offset), expected {least} or more; convert it again."
        raise bad(path, "unreadable", words)
    return int(told)


def _scaling(path: Path, header: Any) -> tuple[float, float, list[str]]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        if intercept == 0 or not math.isfinite(intercept):
            return 1.0, 0.0, []
        words = f"scl_inter is {intercept:g} but scl_slope is {slope:g}, so by the standard nothing is scaled"
        return 1.0, 0.0, [f"{path.name}: {words}; other readers may add it."]
    if not math.isfinite(intercept):
        raise bad(path, "no-hu", f"scl_slope is {slope:g} but scl_inter is {intercept}; correct the header.")
    return slope, intercept, []


def _affine(path: Path, header: Any, size: list[int]) -> tuple[Doubles, float, list[str]]:
    """The matrix from index to RAS, what one of its units is in mm, and warnings."""
    sform, qform = _sform(header), _qform(header)
    warnings = []
    if sform is not None and qform is not None:
        warnings += _contradictions(path, sform, qform, size)
    elif _code(header, "sform_code") and _code(header, "qform_code"):
        warnings.append(f"{path.name}: its {'qform' if qform is None else 'sform'} is damaged; the other is used.")
    if sform is not None and (qform is None or int(header["sform_code"]) == SCANNER):
        chosen = sform
        warnings += _sform_spacing(path, header, sform)
    elif qform is not None:
        chosen = qform
        _check_signs(path, header)
    else:
        raise _no_form(path, header)
    unit_mm, more = _unit(path, header)
    return chosen, unit_mm, warnings + more


def _code(header: Any, name: str) -> int:
    code = int(header[name])
    return code if 0 < code <= LAST_CODE else 0


def _no_form(path: Path, header: Any) -> BadSeries:
    if not (_code(header, "qform_code") or _code(header, "sform_code")):
        words = "neither qform nor sform is set (both codes are 0), so nobody can know where left and right are"
        return bad(path, "orientation", f"{words}; set one of them, or convert the DICOM series again.")
    lengths = _pixdim(header)
    if _code(header, "qform_code") and not (np.isfinite(lengths).all() and lengths.all()):
        return bad(
            path, "spacing", f"voxels of {_by(lengths)} mm (pixdim), expected numbers above 0; correct the header."
        )
    return bad(path, "orientation", "its qform or sform is damaged (zeros, NaN or no rotation); convert it again.")


def _pixdim(header: Any) -> Doubles:
    return np.asarray(header["pixdim"], dtype=np.float64)[1:4]


def _by(numbers: Doubles) -> str:
    return " x ".join(f"{n:g}" for n in numbers)


def _sform(header: Any) -> Doubles | None:
    matrix = np.asarray(header["srow"], dtype=np.float64)
    is_usable = np.isfinite(matrix).all() and (np.abs(matrix[:, :3]).sum(axis=0) > 0).all()
    return matrix if _code(header, "sform_code") and is_usable else None


def _qform(header: Any) -> Doubles | None:
    """nifti1.h, method 2: a unit quaternion (a, b, c, d), lengths and the handedness from pixdim."""
    if not _code(header, "qform_code"):
        return None
    b, c, d = (float(v) for v in header["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    lengths = np.abs(_pixdim(header))
    offset = np.asarray(header["qoffset"], dtype=np.float64)
    if not (rest > -1e-4 and np.isfinite(lengths).all() and np.isfinite(offset).all() and (lengths > 0).all()):
        return None
    a = math.sqrt(max(0.0, rest))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    if float(header["pixdim"][0]) < 0:
        rotation[:, 2] *= -1
    return np.column_stack([rotation / np.linalg.norm(rotation, axis=0) * lengths, offset])


def _contradictions(path: Path, sform: Doubles, qform: Doubles, size: list[int]) -> list[str]:
    """A warning where the forms place voxels differently; a refusal where they disagree on which way is left."""
    a, b = (form[:, :3] / np.linalg.norm(form[:, :3], axis=0) for form in (sform, qform))
    if (np.sum(a * b, axis=0) < SAME_WAY).any():
        words = (
            f"qform says {ways(b * LPS)}, sform {ways(a * LPS)}; keep the right one, or convert the DICOM series again."
        )
        raise bad(path, "orientation", f"qform and sform contradict each other about which way the axes run: {words}")
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*(n - 1 for n in size), 1]
    apart = float(np.linalg.norm(corners @ (sform - qform).T, axis=1).max())
    if apart <= SAME_FORM_MM:
        return []
    return [f"{path.name}: qform and sform place its voxels up to {apart:.2f} mm apart; the scanner's is used."]


def _sform_spacing(path: Path, header: Any, sform: Doubles) -> list[str]:
    """What to say where pixdim and the lengths of the sform's axes differ."""
    told, used = _by(_pixdim(header)), np.linalg.norm(sform[:, :3], axis=0)
    words = f"voxels of {told} by pixdim but of {_by(used)} by the sform"
    off = np.abs(np.abs(_pixdim(header)) / used - 1).max()
    if not off <= SAME_SPACING:
        raise bad(path, "spacing", f"{words}; correct the header.")
    if off > ROUNDED_SPACING or (_pixdim(header) < 0).any():
        return [f"{path.name}: {words}, which is used."]
    return []


def _check_signs(path: Path, header: Any) -> None:
    if (_pixdim(header) < 0).any():
        words = f"pixdim is negative ({_by(_pixdim(header))}), so readers disagree about which way an axis runs"
        raise bad(path, "orientation", f"{words}; correct the header.")


def _unit(path: Path, header: Any) -> tuple[float, list[str]]:
    code = int(header["xyzt_units"]) & UNIT_BITS
    if code in UNIT_NAMES:
        words = f"its lengths are given in {UNIT_NAMES[code]} (xyzt_units) and read as such"
        return UNIT_MM[code], [f"{path.name}: {words}; other readers may take them for mm."]
    if code not in UNIT_MM:
        return 1.0, [f"{path.name}: its unit of length is unknown (xyzt_units {code}) and taken for mm."]
    return 1.0, []
