"""NRRD files (``.nrrd`` in one, ``.nhdr`` with a data file beside it).

After the format's definition (http://teem.sourceforge.net/nrrd/format.html). Only a file that names an anatomical
``space`` says where left and right are; others are refused. ``space origin`` is the centre of the first voxel,
whatever ``centers`` says (ibid., 5.2).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from carina.volume.header import (
    UNITS_MM,
    ByteOrder,
    Packing,
    StoredVoxels,
    VolumeHeader,
    bad,
    check_size,
    doubts,
    file_beside,
    placed,
    short,
    without_ones,
)
from carina.volume.text_header import lines, plain_numbers, read_head, whole_numbers
from carina.volume.voxels import check_room, size_of

MAGIC = re.compile(rb"NRRD000[1-5]")

NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPES = {name: code for code, names in NRRD_TYPES.items() for name in names}

PACKINGS = {
    "raw": Packing.RAW,
    "txt": Packing.TEXT,
    "text": Packing.TEXT,
    "ascii": Packing.TEXT,
    "gz": Packing.DEFLATE,
    "gzip": Packing.DEFLATE,
    "bz2": Packing.BZIP2,
    "bzip2": Packing.BZIP2,
}

SPACES = {
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
}
"""What a space's axes are times in LPS."""

SAME_FIELD = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}

_VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"]*)"')

NrrdFields = Mapping[str, str]


def read_nrrd(path: Path) -> VolumeHeader:
    """Read and check a header.

    Raises:
        BadSeries: it is no NRRD, is damaged, contradicts itself, claims what the data file can't hold, or names a
            data file outside of its own folder.
    """
    fields, end = _fields(path)
    size = whole_numbers(path, "sizes", fields.get("sizes", ""))
    if plain_numbers(path, "dimension", fields.get("dimension", ""), 1) != [len(size)]:
        words = f"dimension is {short(fields['dimension'])} but sizes has {len(size)} numbers; correct the header."
        raise bad(path, "unreadable", words)
    signs = _signs(path, fields, size)
    size, directions = _spatial(path, fields, size)
    origin = _vectors(path, "space origin", fields.get("space origin", "(0,0,0)"))[0]
    if len(origin) != 3:
        raise bad(path, "unreadable", f"space origin is {short(fields['space origin'])}, expected three numbers.")
    affine = np.column_stack([np.array(directions).T, origin]) * np.array(signs)[:, None]
    unit_mm, warnings = _unit(path, fields)
    voxels = _voxels(path, fields, size, end)
    grid = placed(path, size, affine, unit_mm=unit_mm)
    check_room(voxels)
    return VolumeHeader(grid=grid, voxels=voxels, warnings=(*warnings, *doubts(grid, path)))


def _fields(path: Path) -> tuple[NrrdFields, int]:
    """The header's fields by name, and where the header ends."""
    head = read_head(path)
    if not MAGIC.match(head):
        raise bad(path, "unreadable", "is no NRRD file (it does not begin with NRRD0001 to NRRD0005).")
    fields: dict[str, str] = {}
    end = 0
    for line, end in lines(head):  # noqa: B007  # where the last line ended
        if not line:
            break
        name, colon, text = os.fsdecode(line).partition(": ")
        name = SAME_FIELD.get(name.strip().lower(), name.strip().lower())
        if not colon or ":=" in name or line.startswith(b"#"):
            continue
        if name in fields:
            raise bad(path, "unreadable", f"its header has {short(name)!r} twice; correct it.")
        fields[name] = text.strip()
    return fields, end


def _signs(path: Path, fields: NrrdFields, size: Sequence[int]) -> tuple[float, float, float]:
    space = fields.get("space", "").lower()
    if space in SPACES:
        return SPACES[space]
    check_size(path, without_ones(size))
    seen = f"its space is {short(space)!r}" if space else "it names no space"
    raise bad(
        path,
        "orientation",
        f"{seen}, so nobody can know where left and right are; expected left-posterior-superior, for example.",
    )


def _spatial(path: Path, fields: NrrdFields, size: Sequence[int]) -> tuple[list[int], list[list[float]]]:
    """Sizes and step vectors of the axes that lie in space; others must have one voxel."""
    if "space directions" not in fields:
        raise bad(path, "spacing", "its header has no space directions, and a guess would be wrong; add them.")
    steps = _vectors(path, "space directions", fields["space directions"])
    if len(steps) != len(size):
        words = f"space directions has {len(steps)} vectors for {len(size)} axes; correct the header."
        raise bad(path, "unreadable", words)
    spatial = [n for n, step in zip(size, steps, strict=True) if step]
    check_size(path, spatial, math.prod(size) // max(1, math.prod(spatial)))
    used = [step for step in steps if step]
    if any(len(step) != 3 for step in used):
        words = f"space directions is {short(fields['space directions'])}, expected three numbers each."
        raise bad(path, "unreadable", words)
    return spatial, used


def _vectors(path: Path, key: str, text: str) -> list[list[float]]:
    """Vectors in brackets; ``none`` is an empty one."""
    if _VECTOR.sub("", text).strip():
        raise bad(path, "unreadable", f"{key} is {short(text)!r}, expected vectors in brackets; correct the header.")
    vectors = [found[1] for found in _VECTOR.finditer(text)] or [None]
    return [plain_numbers(path, key, v.replace(",", " "), v.count(",") + 1) if v is not None else [] for v in vectors]


def _unit(path: Path, fields: NrrdFields) -> tuple[float, list[str]]:
    told = {unit.lower() for unit in _QUOTED.findall(fields.get("space units", ""))} - {""}
    if not told - {"mm"}:
        return 1.0, []
    if len(told) > 1 or not told <= set(UNITS_MM):
        words = f"space units is {short(fields['space units'])}, expected mm for every axis; correct the header."
        raise bad(path, "spacing", words)
    unit = told.pop()
    words = f"its lengths are given in {unit} and read as such; ITK takes them for mm."
    return UNITS_MM[unit], [f"{path.name}: {words}"]


def _voxels(path: Path, fields: NrrdFields, size: Sequence[int], end: int) -> StoredVoxels:
    kind, encoding = fields.get("type", "").lower(), fields.get("encoding", "").lower()
    if kind not in _TYPES:
        raise bad(path, "unreadable", f"its type is {short(kind)!r}, which is not read; expected short, for example.")
    if encoding not in PACKINGS:
        raise bad(path, "unreadable", f"its encoding is {short(encoding)!r}, expected one of {', '.join(PACKINGS)}.")
    dtype = np.dtype(_TYPES[kind]).newbyteorder(_order(path, fields, kind, encoding))
    voxels = StoredVoxels(
        path=_data_file(path, fields["data file"]) if "data file" in fields else path,
        dtype=dtype,
        count=math.prod(size),
        plane_bytes=size[0] * size[1] * dtype.itemsize,
        packing=PACKINGS[encoding],
        start=0 if "data file" in fields else end,
    )
    return _skipped(path, fields, voxels)


def _order(path: Path, fields: NrrdFields, kind: str, encoding: str) -> ByteOrder:
    endian = fields.get("endian", "").lower()
    if endian in ("little", "big"):
        return "<" if endian == "little" else ">"
    if np.dtype(_TYPES[kind]).itemsize > 1 and PACKINGS[encoding] is not Packing.TEXT:
        raise bad(path, "unreadable", f"its endian is {short(endian)!r}, expected little or big; correct the header.")
    return "="


def _data_file(path: Path, name: str) -> Path:
    if name.startswith("LIST") or re.search(r"%\d*d", name):
        words = f"its voxels lie in several files (data file: {short(name)}), which is not read; join them into one."
        raise bad(path, "unreadable", words)
    return file_beside(path, name)


def _skipped(path: Path, fields: NrrdFields, voxels: StoredVoxels) -> StoredVoxels:
    """With ``line skip`` and ``byte skip``; of packed data the bytes are left out once they are unpacked."""
    (line_count,) = whole_numbers(path, "line skip", fields.get("line skip", "0"))[:1]
    (byte_count,) = whole_numbers(path, "byte skip", fields.get("byte skip", "0"))[:1]
    if line_count:
        raise bad(path, "unreadable", f"line skip is {line_count}, which is not read; leave the lines out.")
    if byte_count == -1 and voxels.packing is Packing.RAW:
        return replace(voxels, start=max(voxels.start, size_of(voxels.path) - voxels.voxel_bytes))
    if byte_count < 0:
        raise bad(path, "unreadable", f"byte skip is {byte_count}, expected a count; correct the header.")
    return replace(voxels, skip=byte_count)
