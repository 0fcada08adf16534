"""MetaImage, NIfTI and NRRD files: voxels with their grid, in and out, in LPS whatever the format's own habit is.

Carina reads and writes the three formats itself: a header is judged before memory is asked for, what it leaves open is
said, and no name or byte of a stranger's reaches code that could end the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carina.errors import one_line
from carina.volume.grid import Grid
from carina.volume.header import VolumeHeader, bad
from carina.volume.metaimage import read_metaimage
from carina.volume.nifti import read_nifti
from carina.volume.nrrd import read_nrrd
from carina.volume.plausible import check_hu
from carina.volume.volume import Mask, ScalarMap, Volume
from carina.volume.voxels import Use, read_blocks
from carina.volume.write import write_voxels

READERS: Mapping[str, Callable[[Path], VolumeHeader]] = {
    ".mhd": read_metaimage,
    ".mha": read_metaimage,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".hdr": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
}

SUFFIXES = tuple(READERS)

SCALE_BOTTOM_HU = -1024
SCALE_TOP_HU = 32767

MOST_HU = 70000
"""No value lies above, or below its negative: metal reaches 30000, padding -32768."""

SAMPLED = 64
"""Every so many values are looked at before they are clipped."""


def volume_suffix(path: Path) -> str:
    """The file's suffix if it is one that is read here, lower case (``.nii.gz`` is one suffix); else empty."""
    name = path.name.lower()
    return next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(s) and name != s), "")


def volume_name(path: Path) -> str:
    """The file's name without its suffix, as it may be printed: the ``uid`` of what is read from it."""
    return one_line(path.name[: len(path.name) - len(volume_suffix(path))])


def read_volume(path: Path) -> Volume:
    """Read a CT volume in Hounsfield units; values are rounded and clipped to -1024 .. 32767.

    NaN counts as padding and becomes -1024. The volume's warnings say so, and what the header leaves open.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, does not say where left and right are,
            or its values are no HU of a chest.
    """
    header = read_volume_header(path)
    if header.voxels.dtype.itemsize == 1:
        raise bad(path, "no-hu", "8-bit values can't be HU; give the CT itself, not a mask or picture.")
    hu = _zeros(path, header, np.int16)
    seen = _Seen()
    rest = read_blocks(header.voxels, _into(hu, seen.hounsfield))
    warnings = (*header.warnings, *rest, *seen.warnings(path))
    check_hu(hu, path.name, origin="file", unclipped=np.concatenate(seen.sample))
    return Volume(hu=hu, grid=header.grid, uid=volume_name(path), warnings=warnings)


def read_mask(path: Path, names: Mapping[int, str] | None = None) -> Mask:
    """Read labels; ``names`` gives a word for each value, ``label N`` where it is silent.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, does not say where left and right are,
            or holds other than whole 0 .. 255.
    """
    header = read_volume_header(path)
    labels = _zeros(path, header, np.uint8)
    is_found = np.zeros(256, np.bool_)

    def whole(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore"):
            found = values.astype(np.uint8, copy=False)
        if found is not values and not np.array_equal(found, values):
            raise bad(path, "no-labels", "values are no whole numbers from 0 to 255, so no labels.")
        largest = int(found.max(initial=0))
        is_found[largest] = True
        if largest > 1:
            np.logical_or(is_found, np.bincount(found, minlength=256), out=is_found)
        return found

    rest = read_blocks(header.voxels, _into(labels, whole))
    known = {**{int(v): f"label {v}" for v in np.flatnonzero(is_found) if v}, **(names or {})}
    warnings = (*header.warnings, *rest)
    return Mask(labels=labels, grid=header.grid, names=known, uid=volume_name(path), warnings=warnings)


def read_map(path: Path, quantity: str = "", unit: str = "") -> ScalarMap:
    """Read one number a voxel; what it is and its unit are not in the file.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, or does not say where left and right
            are.
    """
    header = read_volume_header(path)
    values = _zeros(path, header, np.float32)
    read_blocks(header.voxels, _into(values, lambda block: block))
    return ScalarMap(values=values, grid=header.grid, quantity=quantity, unit=unit, uid=volume_name(path))


def read_volume_header(path: Path) -> VolumeHeader:
    """The grid of a file, where its voxels lie and what is open about it, without reading voxels.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, or does not say where left and right
            are.
    """
    suffix = volume_suffix(path)
    if not suffix:
        raise bad(path, "suffix", f"unknown suffix, expected one of {', '.join(SUFFIXES)}.")
    with np.errstate(all="ignore"):  # NaN and infinity in a header are judged, not warned of
        return READERS[suffix](path)


def read_grid(path: Path) -> tuple[Grid, str]:
    """The grid of a file and its voxel type's name (``16-bit signed integer``), without reading voxels.

    Raises:
        BadSeries: as ``read_header``.
    """
    header = read_volume_header(path)
    return header.grid, header.voxel_type


def write_volume(volume: Volume, path: Path, *, compress: bool = False) -> None:
    """Write HU voxels; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    write_voxels(volume.hu, volume.grid, path, volume_suffix(path), compress=compress)


def write_mask(mask: Mask, path: Path, *, compress: bool = True) -> None:
    """Write labels; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    write_voxels(mask.labels, mask.grid, path, volume_suffix(path), compress=compress)


def write_map(scalars: ScalarMap, path: Path, *, compress: bool = True) -> None:
    """Write float32 values; the file appears complete or not at all. ``compress`` is for MetaImage and NRRD.

    Raises:
        BadConfig: the suffix is not known, or the place can't be written.
    """
    write_voxels(scalars.values, scalars.grid, path, volume_suffix(path), compress=compress)


def _zeros(path: Path, header: VolumeHeader, dtype: type[np.generic]) -> npt.NDArray[Any]:
    try:
        return np.zeros(header.grid.shape, dtype)
    except MemoryError as error:
        words = f"a volume of {' x '.join(map(str, header.grid.shape))} voxels does not fit into memory."
        raise bad(path, "memory", words) from error


def _into(array: npt.NDArray[Any], change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Use:
    """What puts each block of a file, changed, into its place in the array."""
    flat = array.reshape(-1)

    def use(first: int, block: npt.NDArray[Any]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # values that the type can't hold become infinite
            changed = change(block)
            if changed.any():  # where nothing is, memory that was never touched costs nothing
                flat[first : first + len(block)] = changed

    return use


class _Seen:
    """What was seen of values on their way to HU."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.missing = 0
        self.sample: list[npt.NDArray[Any]] = []

    def hounsfield(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values rounded and clipped; NaN is padding."""
        if values.dtype.kind == "f":
            values = np.rint(values)
            is_missing = np.isnan(values)
            if is_missing.any():
                self.missing += int(np.count_nonzero(is_missing))
                values[is_missing] = SCALE_BOTTOM_HU
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.sample.append(values[::SAMPLED].astype(np.float64))
        return values.clip(SCALE_BOTTOM_HU, SCALE_TOP_HU)

    def warnings(self, path: Path) -> tuple[str, ...]:
        """A sentence on NaN.

        Raises:
            BadSeries: ``file.no-hu``, values are infinite or too large for HU.
        """
        if self.low < -MOST_HU or self.high > MOST_HU:
            seen = f"values run from {self.low:g} to {self.high:g}"
            raise bad(path, "no-hu", f"{seen}; a chest CT in HU reaches from -1000 to some thousand; convert it again.")
        words = f"{path.name}: {self.missing} voxels are NaN (no number) and taken for padding, {SCALE_BOTTOM_HU} HU."
        return (words,) if self.missing else ()
