"""MetaImage files (``.mhd`` with a data file beside it, ``.mha`` in one), in LPS as ITK reads and writes them.

After MetaIO's documentation (https://itk.org/Wiki/MetaIO/Documentation). ``TransformMatrix`` holds, one after the
other, the directions along which the first, second and third index grow.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from carina.volume.arrays import Doubles
from carina.volume.header import (
    FROM,
    ORTHOGONAL,
    UNITS_MM,
    Packing,
    StoredVoxels,
    VolumeHeader,
    bad,
    check_size,
    doubts,
    file_beside,
    placed,
    short,
    ways,
    without_ones,
)
from carina.volume.text_header import lines, plain_numbers, read_head, whole_numbers
from carina.volume.voxels import check_room, size_of

META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

LAST_KEY = "ElementDataFile"
LOCAL = ("local", "Local", "LOCAL")

MATRIX_KEYS = ("TransformMatrix", "Rotation", "Orientation")
OFFSET_KEYS = ("Offset", "Position", "Origin")
SPACING_KEYS = ("ElementSpacing", "ElementSize")
ORDER_KEYS = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")

_LINE = re.compile(r"\s*(\w+)\s*[=:]\s*(.*?)\s*", re.ASCII | re.DOTALL)
_ANATOMY = re.compile(r"[RL][AP][IS]|[RL][IS][AP]|[AP][RL][IS]|[AP][IS][RL]|[IS][RL][AP]|[IS][AP][RL]")

MetaFields = Mapping[str, str]


def read_metaimage(path: Path) -> VolumeHeader:
    """Read and check a header.

    Raises:
        BadSeries: it is no MetaImage, is damaged, contradicts itself, claims what the data file can't hold, or names a
            data file outside of its own folder.
    """
    fields, end = _fields(path)
    size = _size(path, fields)
    affine, unit_mm, warnings = _affine(path, fields, len(size))
    size = without_ones(size)
    voxels = _voxels(path, fields, size, end)
    check_size(path, size, _channels(path, fields))
    grid = placed(path, size, affine, unit_mm=unit_mm)
    check_room(voxels)
    return VolumeHeader(grid=grid, voxels=voxels, warnings=(*warnings, *doubts(grid, path)))


def _fields(path: Path) -> tuple[MetaFields, int]:
    """The header's lines by key, and where the header ends."""
    fields: dict[str, str] = {}
    for line, end in lines(read_head(path)):
        parts = _LINE.fullmatch(os.fsdecode(line))
        if parts is None:
            continue
        key = parts[1]
        if key in fields:
            raise bad(path, "unreadable", f"its header has {key} twice; correct it.")
        fields[key] = parts[2]
        if key == LAST_KEY:
            return fields, end
    raise bad(path, "unreadable", f"is no MetaImage: its header has no {LAST_KEY}.")


def _size(path: Path, fields: MetaFields) -> list[int]:
    (count,) = plain_numbers(path, "NDims", fields.get("NDims", ""), 1)
    size = whole_numbers(path, "DimSize", fields.get("DimSize", ""))
    if len(size) != count:
        raise bad(path, "unreadable", f"NDims is {count:g} but DimSize has {len(size)} numbers; correct the header.")
    if len(size) < 3:
        check_size(path, size)
    return size


def _channels(path: Path, fields: MetaFields) -> int:
    (count,) = whole_numbers(path, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"))[:1]
    return count


def _first(fields: MetaFields, keys: Sequence[str]) -> tuple[str, str | None]:
    key = next((key for key in keys if key in fields), keys[0])
    return key, fields.get(key)


def _affine(path: Path, fields: MetaFields, count: int) -> tuple[Doubles, float, list[str]]:
    """The matrix from index to LPS, what one of its units is in mm, and warnings; ``count`` is NDims."""
    key, text = _first(fields, SPACING_KEYS)
    if text is None:
        raise bad(path, "spacing", "its header has no ElementSpacing, and a guess would be wrong; add it.")
    spacing = np.array(plain_numbers(path, key, text, count)[:3])
    if not (spacing > 0).all():
        raise bad(path, "spacing", f"{key} is {short(text)}, expected numbers above 0; correct the header.")
    key, text = _first(fields, OFFSET_KEYS)
    origin = np.array(plain_numbers(path, key, text, count)[:3] if text is not None else [0.0, 0.0, 0.0])
    directions, warnings = _directions(path, fields, count)
    unit = fields.get("DistanceUnits", "mm").lower()
    if unit not in UNITS_MM:
        raise bad(path, "spacing", f"DistanceUnits is {short(unit)!r}, expected mm; correct the header.")
    if UNITS_MM[unit] != 1.0:
        warnings.append(f"{path.name}: its lengths are given in {unit} and read as such; ITK takes them for mm.")
    return np.column_stack([directions * spacing, origin]), UNITS_MM[unit], warnings


def _directions(path: Path, fields: MetaFields, count: int) -> tuple[Doubles, list[str]]:
    """Unit vectors along which the indices grow, as columns, and warnings about them."""
    key, text = _first(fields, MATRIX_KEYS)
    told = fields.get("AnatomicalOrientation", "").upper()
    if text is None:
        directions = np.eye(3)
        if _contradicts(told, directions):
            words = f"AnatomicalOrientation is {told} and there is no TransformMatrix, so left and right are unknown"
            raise bad(path, "orientation", f"{words}; add the matrix.")
        words = "its header has no TransformMatrix; index and patient axes are taken for parallel, as ITK does."
        return directions, [f"{path.name}: {words}"]
    directions = np.array(plain_numbers(path, key, text, count * count)).reshape(count, count)[:3, :3].T
    lengths = np.linalg.norm(directions, axis=0)
    if not (np.abs(lengths - 1) <= ORTHOGONAL).all():
        raise bad(path, "sheared", f"{key} is {short(text)}, expected directions of length 1; correct the header.")
    if _contradicts(told, directions):
        words = f"AnatomicalOrientation is {told}, which {key} contradicts; the matrix is used, as ITK does."
        return directions / lengths, [f"{path.name}: {words}"]
    return directions / lengths, []


def _contradicts(told: str, directions: Doubles) -> bool:
    """Whether an AnatomicalOrientation fits neither where the axes come from (ITK's way) nor where they run to."""
    if not _ANATOMY.fullmatch(told):
        return False
    to = ways(directions)
    return told not in (to, to.translate(FROM))


def _voxels(path: Path, fields: MetaFields, size: Sequence[int], end: int) -> StoredVoxels:
    kind = fields.get("ElementType", "")
    if kind.removesuffix("_ARRAY") not in META_TYPES:
        raise bad(
            path, "unreadable", f"ElementType is {short(kind)!r}, which is not read; expected MET_SHORT, for example."
        )
    if kind.endswith("_ARRAY"):
        check_size(path, size, 2)
    _check_intensity(path, fields)
    dtype = np.dtype(META_TYPES[kind]).newbyteorder(">" if _is_big(path, fields) else "<")
    is_local = fields[LAST_KEY] in LOCAL
    data = path if is_local else _data_file(path, fields[LAST_KEY])
    packing = _packing(fields)
    voxels = StoredVoxels(
        path=data,
        dtype=dtype,
        count=math.prod(size),
        plane_bytes=size[0] * size[1] * dtype.itemsize,
        packing=packing,
    )
    return _after_header(path, fields, voxels, end if is_local else 0)


def _check_intensity(path: Path, fields: MetaFields) -> None:
    for key, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if plain_numbers(path, key, fields.get(key, f"{plain}"), 1) != [plain]:
            words = f"{key} is {short(fields[key])}, which ITK leaves out; write the values themselves."
            raise bad(path, "no-hu", words)


def _is_big(path: Path, fields: MetaFields) -> bool:
    told = {fields[key].lower() in ("true", "1") for key in ORDER_KEYS if key in fields}
    if len(told) > 1:
        raise bad(path, "unreadable", f"{' and '.join(ORDER_KEYS)} contradict each other; correct the header.")
    return True in told


def _packing(fields: MetaFields) -> Packing:
    if fields.get("CompressedData", "").lower() in ("true", "1"):
        return Packing.DEFLATE
    return Packing.TEXT if fields.get("BinaryData", "").lower() in ("false", "0") else Packing.RAW


def _data_file(path: Path, name: str) -> Path:
    if name.startswith("LIST") or "%" in name:
        words = f"its voxels lie in several files ({LAST_KEY} = {short(name)}), which is not read; join them into one."
        raise bad(path, "unreadable", words)
    return file_beside(path, name)


def _after_header(path: Path, fields: MetaFields, voxels: StoredVoxels, start: int) -> StoredVoxels:
    """With what HeaderSize says lies before the voxels in the data file; -1: they lie at its end."""
    (told,) = whole_numbers(path, "HeaderSize", fields.get("HeaderSize", "0"))[:1]
    if told < 0 and voxels.packing is Packing.RAW:
        start = max(start, size_of(voxels.path) - voxels.voxel_bytes)
    return replace(voxels, start=start + max(0, told))
