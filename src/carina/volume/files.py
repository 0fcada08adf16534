"""MetaImage, NIfTI and NRRD files: voxels with their grid, in and out, in LPS whatever the format's own habit is."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.errors import BadConfig, BadSeries
from carina.volume.grid import Axes, Grid, Triple
from carina.volume.volume import Mask, ScalarMap, Volume

SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd", ".nhdr")

AIR_HU = -1024
TOP_HU = 32767

LUNG_HU = -300
"""A chest CT reaches at least down to here; masks, probabilities and magnetic resonance do not."""

LOWEST_HU = -10000
HIGHEST_HU = 70000

ORTHOGONAL = 1e-3
"""Direction cosines are orthogonal and of unit length within this."""

CHUNK_BYTES = 1 << 22
NIFTI_HEADER_BYTES = 352
"""The least that comes before the voxels in one file (NIfTI-1: ``vox_offset``)."""
HEADER_BYTES = 1 << 20
"""More than a NIfTI header with its extensions takes."""

COMPRESSION = 1
"""zlib level of compressed files: the quickest, and labels are small at any level."""


def volume_suffix(path: Path) -> str:
    """The file's suffix if it is one that is read here, lower case (``.nii.gz`` is one suffix); else empty."""
    name = path.name.lower()
    return next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(s) and name != s), "")


def volume_name(path: Path) -> str:
    """The file's name without its suffix: the ``uid`` of what is read from it."""
    return path.name[: len(path.name) - len(volume_suffix(path))]


def read_volume(path: Path) -> Volume:
    """Read a CT volume in Hounsfield units; values are rounded and clipped to -1024 .. 32767.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, or its values are no HU of a chest.
    """
    array, grid = _read(path)
    check_values(path, array)
    if array.dtype.kind == "f":
        array = np.rint(array)
    hu = np.clip(array, AIR_HU, TOP_HU).astype(np.int16, copy=False)
    return Volume(hu=hu, grid=grid, uid=volume_name(path))


def read_mask(path: Path, names: Mapping[int, str] | None = None) -> Mask:
    """Read labels; ``names`` gives a word for each value, ``label N`` where it is silent.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, or holds other than whole 0 .. 255.
    """
    array, grid = _read(path)
    labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        raise BadSeries("file.no-labels", f"{path.name}: values are no whole numbers from 0 to 255, so no labels.")
    found = (int(v) for v in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)) if v)
    known = {**{v: f"label {v}" for v in found}, **(names or {})}
    return Mask(labels=labels, grid=grid, names=known, uid=volume_name(path))


def write_volume(volume: Volume, path: Path, *, compress: bool = False) -> None:
    """Write HU voxels; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    _write(volume.hu, volume.grid, path, compress=compress)


def write_mask(mask: Mask, path: Path, *, compress: bool = True) -> None:
    """Write labels; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    _write(mask.labels, mask.grid, path, compress=compress)


def read_map(path: Path, quantity: str = "", unit: str = "") -> ScalarMap:
    """Read one number a voxel; what it is and its unit are not in the file.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, or is sheared.
    """
    array, grid = _read(path)
    values = array.astype(np.float32, copy=False)
    return ScalarMap(values=values, grid=grid, quantity=quantity, unit=unit, uid=volume_name(path))


def write_map(scalars: ScalarMap, path: Path, *, compress: bool = True) -> None:
    """Write float32 values; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    _write(scalars.values, scalars.grid, path, compress=compress)


def read_grid(path: Path) -> tuple[Grid, str]:
    """The grid of a file and its voxel type's name (``16-bit signed integer``), without reading voxels.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, or is sheared.
    """
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    _check_shape(path, reader.GetSize(), reader.GetNumberOfComponents())
    grid = _grid(path, reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    return grid, str(sitk.GetPixelIDValueAsString(reader.GetPixelID()))


def check_values(path: Path, array: npt.NDArray[Any]) -> None:
    """Refuse voxels that can't be a chest CT's Hounsfield units.

    Raises:
        BadSeries: the message names the type or the range seen.
    """
    if array.dtype.itemsize == 1:
        raise BadSeries(
            "file.no-hu", f"{path.name}: 8-bit values can't be HU; give the CT itself, not a mask or picture."
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low > LUNG_HU or low < LOWEST_HU or high > HIGHEST_HU:
        raise BadSeries(
            "file.no-hu",
            f"{path.name}: values run from {low:g} to {high:g}; a chest CT in HU reaches from below {LUNG_HU} "
            "to some thousand.",
        )


def _unreadable(path: Path, error: RuntimeError) -> BadSeries:
    if not path.exists():
        return BadSeries("file.missing", f"{path}: no such file.")
    words = str(error)
    if "orthonormal" in words or "direction cosines" in words.lower():
        return BadSeries(
            "file.sheared", f"{path.name}: its axes are sheared, expected orthogonal ones; resample it first."
        )
    return BadSeries(
        "file.unreadable", f"{path.name}: can't be read as a volume; it may be cut short or another format."
    )


def _read(path: Path) -> tuple[npt.NDArray[Any], Grid]:
    import SimpleITK as sitk  # noqa: N813

    if not volume_suffix(path):
        raise BadSeries("file.suffix", f"{path.name}: unknown suffix, expected one of {', '.join(SUFFIXES)}.")
    read_grid(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    _check_whole(path, image.GetNumberOfPixels() * image.GetSizeOfPixelComponent())
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    grid = _grid(path, image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return sitk.GetArrayFromImage(image), grid


def _check_whole(path: Path, voxel_bytes: int) -> None:
    """Refuse a NIfTI file that is cut short or damaged: ITK reads what is there and leaves the rest 0."""
    suffix = volume_suffix(path)
    if suffix not in (".nii", ".nii.gz"):
        return
    try:
        held = path.stat().st_size if suffix == ".nii" else _unpacked_bytes(path, voxel_bytes)
    except (EOFError, OSError, zlib.error) as error:
        raise BadSeries("file.truncated", f"{path.name}: is cut short or damaged; copy it again.") from error
    whole = voxel_bytes + NIFTI_HEADER_BYTES
    if held < whole:
        raise BadSeries("file.truncated", f"{path.name}: is cut short, holds {held} bytes of {whole}; copy it again.")


def _unpacked_bytes(path: Path, expected: int) -> int:
    """How many bytes a gzip file unpacks to: by its trailer where that agrees (RFC 1952, ISIZE), else by unpacking."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        told = int.from_bytes(file.read(4), "little")
    beyond = (told - expected) % 2**32
    if beyond <= HEADER_BYTES:
        return expected + beyond
    with gzip.open(path) as stream:
        return sum(len(part) for part in iter(lambda: stream.read(CHUNK_BYTES), b""))


def _check_shape(path: Path, size: tuple[int, ...], components: int) -> None:
    is_flat = len(size) == 4 and size[3] == 1
    if (len(size) != 3 and not is_flat) or min(size) < 1 or components != 1:
        per_voxel = f" with {components} values each" if components != 1 else ""
        seen = " x ".join(map(str, size))
        raise BadSeries("file.not-3d", f"{path.name}: holds {seen} voxels{per_voxel}, expected one 3D volume.")


def _grid(
    path: Path,
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    direction: tuple[float, ...],
) -> Grid:
    matrix = np.array(direction).reshape(len(size), len(size))[:3, :3]
    if np.abs(matrix.T @ matrix - np.eye(3)).max() > ORTHOGONAL:
        raise BadSeries(
            "file.sheared", f"{path.name}: its axes are sheared, expected orthogonal ones; resample it first."
        )
    x, y, z = (_triple(matrix[:, k]) for k in range(3))
    axes: Axes = (z, y, x)
    return Grid(
        shape=(size[2], size[1], size[0]),
        spacing_mm=(spacing[2], spacing[1], spacing[0]),
        origin_mm=_triple(np.array(origin[:3])),
        axes=axes,
    )


def _triple(vector: npt.NDArray[np.float64]) -> Triple:
    x, y, z = (float(v) + 0.0 for v in vector)
    return (x, y, z)


def _write(array: npt.NDArray[Any], grid: Grid, path: Path, *, compress: bool) -> None:
    import SimpleITK as sitk  # noqa: N813

    suffix = volume_suffix(path)
    if not suffix:
        raise BadConfig("output.suffix", f"{path.name}: unknown suffix, expected one of {', '.join(SUFFIXES)}.")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(grid.spacing_mm)])
    image.SetOrigin([float(v) for v in grid.origin_mm])
    image.SetDirection(np.array(grid.axes[::-1]).T.ravel().tolist())
    is_compressed = suffix == ".nii.gz" or (compress and suffix != ".nii")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            sitk.WriteImage(image, str(aside / path.name), is_compressed, COMPRESSION)
            _move_all(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "is the disk full, or the folder read-only?"
        raise BadConfig("output.unwritable", f"{path}: can't be written ({reason})") from error


def _move_all(aside: Path, path: Path) -> None:
    """Move what was written, the header last: whoever sees it finds its data."""
    for written in sorted(aside.iterdir(), key=lambda file: file.name == path.name):
        written.replace(path.parent / written.name)
