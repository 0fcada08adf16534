"""Volume files out: headers and voxels of the three formats, and the move that makes a file appear whole or not at all.

What is written says its geometry with every digit; NIfTI-1 as float32, which is its limit.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from carina.errors import BadConfig
from carina.volume import metaimage, nifti, nrrd
from carina.volume.arrays import Doubles
from carina.volume.grid import Grid
from carina.volume.header import FROM, ways

COMPRESSION = 1
"""Level of compressed files: the quickest that compresses, and labels are small at any level."""

ZLIB, GZ = isal_zlib.MAX_WBITS, isal_zlib.MAX_WBITS | 16

NIFTI_AXIS = 32767

_PLAIN_NAME = re.compile(r"(?!LIST)[A-Za-z0-9_.-][A-Za-z0-9_. -]*", re.ASCII)
"""Names that every reader finds in a header as they are; ITK takes ``%`` and ``LIST`` for several files."""

Parts = Sequence[tuple[str, Iterable[bytes]]]
"""Files by name with their content, the one that is opened last."""


@dataclass(frozen=True, kw_only=True)
class _Out:
    """What is to be written under which name."""

    array: npt.NDArray[Any]
    grid: Grid
    name: str
    suffix: str
    compress: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype.newbyteorder("<")

    @property
    def stem(self) -> str:
        return self.name[: len(self.name) - len(self.suffix)]

    @property
    def size(self) -> tuple[int, ...]:
        return self.array.shape[::-1]

    @property
    def directions(self) -> Doubles:
        """Unit vectors along which x, y and z grow in LPS, as columns."""
        return np.array(self.grid.axes[::-1]).T

    def slices(self) -> Iterator[bytes]:
        """The voxels, little endian."""
        for plane in self.array:
            yield np.ascontiguousarray(plane, dtype=self.dtype).tobytes()


def write_voxels(array: npt.NDArray[Any], grid: Grid, path: Path, suffix: str, *, compress: bool) -> None:
    """Write voxels ``(z, y, x)`` in the format of a suffix; folders are made, the file appears whole or not at all.

    Raises:
        BadConfig: ``output.suffix`` or ``output.unwritable``, the reason in words.
    """
    if suffix not in WRITERS:
        raise BadConfig("output.suffix", f"{path.name}: unknown suffix, expected one of {', '.join(WRITERS)}.")
    out = _Out(array=array, grid=grid, name=path.name, suffix=suffix, compress=compress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".carina-", dir=path.parent))
        try:
            _place(WRITERS[suffix](out), aside, path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise BadConfig("output.unwritable", f"{path}: can't be written ({reason}).") from error


def nifti_parts(array: npt.NDArray[Any], grid: Grid, *, compress: bool) -> Iterator[bytes]:
    """Voxels ``(z, y, x)`` as a NIfTI-1 file, part by part, for who sends it instead of storing it."""
    suffix = ".nii.gz" if compress else ".nii"
    out = _Out(array=array, grid=grid, name=f"image{suffix}", suffix=suffix, compress=compress)
    ((_, content),) = _nifti(out)
    yield from content


def _place(parts: Parts, aside: Path, folder: Path) -> None:
    """Write all parts aside, then move them, the header last: whoever sees it finds its data."""
    for name, _ in parts:
        if (folder / name).is_dir():
            raise IsADirectoryError(0, f"{name} is a folder")
    for name, content in parts:
        with (aside / name).open("wb") as file:
            file.writelines(content)
    for name, _ in parts:
        (aside / name).replace(folder / name)


def _metaimage(out: _Out) -> Parts:
    data = list(_packed(out.slices(), ZLIB)) if out.compress else []
    beside = _beside(out, "zraw" if out.compress else "raw")
    kinds = {code: kind for kind, code in metaimage.META_TYPES.items() if "LONG" not in kind}
    size = {"CompressedDataSize": str(sum(map(len, data)))} if out.compress else {}
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(out.compress),
        **size,
        "TransformMatrix": _numbers(out.directions.T.ravel()),
        "Offset": _numbers(out.grid.origin_mm),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": ways(out.directions).translate(FROM),
        "ElementSpacing": _numbers(out.grid.spacing_mm[::-1]),
        "DimSize": " ".join(map(str, out.size)),
        "ElementType": kinds[_code(out)],
        "ElementDataFile": beside or "LOCAL",
    }
    header = "".join(f"{key} = {value}\n" for key, value in fields.items()).encode("ascii")
    return _joined(out, header, data or out.slices(), beside)


def _nrrd(out: _Out) -> Parts:
    steps = (out.directions * out.grid.spacing_mm[::-1]).T
    beside = _beside(out, "raw.gz" if out.compress else "raw")
    fields = {
        "type": nrrd.NRRD_TYPES[_code(out)][0],
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, out.size)),
        "space directions": " ".join(f"({_numbers(step, ',')})" for step in steps),
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "gzip" if out.compress else "raw",
        "space origin": f"({_numbers(out.grid.origin_mm, ',')})",
        **({"data file": beside} if beside else {}),
    }
    header = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"
    return _joined(out, header.encode("ascii"), _packed(out.slices(), GZ) if out.compress else out.slices(), beside)


def _beside(out: _Out, suffix: str) -> str:
    """The name of the data file beside a header; none where a reader would not find it, or the format needs none."""
    is_apart = out.suffix in (".mhd", ".nhdr") and _PLAIN_NAME.fullmatch(out.name)
    return f"{out.stem}.{suffix}" if is_apart else ""


def _joined(out: _Out, header: bytes, data: Iterable[bytes], beside: str) -> Parts:
    """Header and data in one file, or the data in one of that name."""
    if beside:
        return [(beside, data), (out.name, [header])]
    return [(out.name, _chained([header], data))]


def _nifti(out: _Out) -> Parts:
    if max(out.size) > NIFTI_AXIS:
        raise ValueError(f"NIfTI-1 has at most {NIFTI_AXIS} voxels along an axis; write NRRD")
    is_pair = out.suffix == ".hdr"
    header = _nifti_header(out, is_pair=is_pair)
    if is_pair:
        return [(f"{out.stem}.img", out.slices()), (out.name, [header])]
    content = _chained([header, bytes(4)], out.slices())
    return [(out.name, _packed(content, GZ) if out.suffix == ".nii.gz" else content)]


def _nifti_header(out: _Out, *, is_pair: bool) -> bytes:
    """qform and sform alike, both of the scanner's coordinates."""
    directions = out.directions * nifti.LPS
    affine = np.column_stack([directions * out.grid.spacing_mm[::-1], np.array(out.grid.origin_mm) * nifti.LPS[:, 0]])
    hand = 1.0 if np.linalg.det(directions) > 0 else -1.0
    fields = np.zeros((), nifti.FIRST)
    fields["sizeof_hdr"] = nifti.FIRST.itemsize
    fields["dim"] = [3, *out.size, 1, 1, 1, 1]
    fields["datatype"] = next(code for code, kind in nifti.VOXEL_TYPES.items() if kind == _code(out))
    fields["bitpix"] = 8 * out.dtype.itemsize
    fields["pixdim"] = [hand, *out.grid.spacing_mm[::-1], 0, 0, 0, 0]
    fields["vox_offset"] = 0 if is_pair else nifti.FIRST.itemsize + 4
    fields["scl_slope"] = 1
    fields["xyzt_units"] = 2
    fields["qform_code"] = fields["sform_code"] = nifti.SCANNER
    fields["quatern"] = _quaternion(directions * [1.0, 1.0, hand])
    fields["qoffset"] = affine[:, 3]
    fields["srow"] = affine
    fields["magic"] = b"ni1" if is_pair else b"n+1"
    return fields.tobytes()


def _quaternion(rotation: Doubles) -> Doubles:
    """(b, c, d) of the unit quaternion next to a rotation, with a >= 0 (Bar-Itzhack, J Guid Control Dyn 2000; 23)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    products = [
        [xx - yy - zz, yx + xy, zx + xz, zy - yz],
        [yx + xy, yy - xx - zz, zy + yz, xz - zx],
        [zx + xz, zy + yz, zz - xx - yy, yx - xy],
        [zy - yz, xz - zx, yx - xy, xx + yy + zz],
    ]
    b, c, d, a = np.linalg.eigh(np.array(products))[1][:, -1]
    return np.array([b, c, d]) * (1.0 if a >= 0 else -1.0)


def _code(out: _Out) -> str:
    return f"{out.dtype.kind}{out.dtype.itemsize}"


def _numbers(values: Iterable[float], between: str = " ") -> str:
    """Numbers with as many digits as they have; whole ones without a point, as other writers do."""
    return between.join(f"{v:.0f}" if v == int(v) else repr(float(v)) for v in values)


def _packed(content: Iterable[bytes], wbits: int) -> Iterator[bytes]:
    packer = isal_zlib.compressobj(COMPRESSION, isal_zlib.DEFLATED, wbits)
    for part in content:
        yield packer.compress(part)
    yield packer.flush()


def _chained(first: Iterable[bytes], then: Iterable[bytes]) -> Iterator[bytes]:
    yield from first
    yield from then


WRITERS: Mapping[str, Callable[[_Out], Parts]] = {
    ".mhd": _metaimage,
    ".mha": _metaimage,
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".hdr": _nifti,
    ".nrrd": _nrrd,
    ".nhdr": _nrrd,
}
