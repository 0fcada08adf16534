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
from carina.volume.values import HuValues, LabelValues
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
    values = HuValues(path, header)
    hu = _zeros(path, header, np.int16)
    rest = read_blocks(header.voxels, _into(hu, values.taken))
    warnings = (*header.warnings, *rest, *values.warnings())
    check_hu(hu, path.name, origin="file", unclipped=np.concatenate(values.sample))
    return Volume(hu=hu, grid=header.grid, uid=volume_name(path), warnings=warnings)


def read_mask(path: Path, names: Mapping[int, str] | None = None) -> Mask:
    """Read labels; ``names`` gives a word for each value, ``label N`` where it is silent.

    Raises:
        BadSeries: the file can't be read, is not three-dimensional, is sheared, does not say where left and right are,
            or holds other than whole 0 .. 255.
    """
    header = read_volume_header(path)
    labels, values = _zeros(path, header, np.uint8), LabelValues(path)
    rest = read_blocks(header.voxels, _into(labels, values.taken))
    known, warnings = values.names(names or {}), (*header.warnings, *rest)
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
