"""A whole file as pydicom's ``Dataset``: of a deflated one no more is inflated than the settings allow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import Tag

from carina.dicom.part10 import PIXEL_DATA, PREAMBLE, DataSet, find_data_set, reading
from carina.dicom.sources import LARGEST_INFLATED_HEADER, Inflated
from carina.dicom.voxel_limit import BYTES_OF_A_VOXEL, allowed_voxels, too_many_voxels


def read_whole(path: Path, *, stop_before_pixels: bool = False, tags: Sequence[str] = ()) -> Dataset:
    """What pydicom's ``dcmread`` gives, which would inflate all of a deflated file, however large it becomes.

    Raises:
        BadSeries: it inflates to more than ``limits.voxels`` allow, or a deflated one can't be followed.
        Exception: what pydicom raises of a file that it can't follow.
    """
    with reading(path) as stream:
        data_set = find_data_set(path.name, stream)
        if data_set is None or not isinstance(data_set.source, Inflated):
            return dcmread(path, stop_before_pixels=stop_before_pixels, specific_tags=list(tags) or None)
        most = _header_bytes(data_set) if stop_before_pixels else BYTES_OF_A_VOXEL * allowed_voxels()
    inflated = _inflated(path, most if stop_before_pixels else most + LARGEST_INFLATED_HEADER + 1)
    if not stop_before_pixels and len(inflated) > most + LARGEST_INFLATED_HEADER:
        raise too_many_voxels(path.name, f"it inflates to more than {most + LARGEST_INFLATED_HEADER} bytes")
    return _dataset(path, inflated, stop_before_pixels=stop_before_pixels, tags=tags)


def _header_bytes(data_set: DataSet) -> int:
    """How far a deflated file has to be inflated to see all before its pixels."""
    pixels = (one.start for one in data_set.elements() if one.tag == PIXEL_DATA)
    return min(next(pixels, LARGEST_INFLATED_HEADER), LARGEST_INFLATED_HEADER)


def _inflated(path: Path, size: int) -> bytes:
    with reading(path) as stream:
        data_set = find_data_set(path.name, stream)
        return data_set.source.take(0, size) if data_set else b""


def _dataset(path: Path, inflated: bytes, *, stop_before_pixels: bool, tags: Sequence[str]) -> Dataset:
    found = read_dataset(
        io.BytesIO(inflated),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=(lambda tag, *_: tag == PIXEL_DATA) if stop_before_pixels else None,
        specific_tags=[Tag(tag) for tag in tags] or None,
    )
    found.file_meta = FileMetaDataset(read_file_meta_info(path))
    found.preamble = bytes(PREAMBLE)
    found.filename = str(path)
    return found
