"""What a job will need, before it runs: memory by the size of its series, cores by the machine."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from pathlib import Path

from pydicom.errors import InvalidDicomError

from carina.config import Settings
from carina.dicom.series import Source, VolumeFile
from carina.dicom.walk import walk
from carina.dicom.whole_file import read_whole
from carina.errors import BadConfig, BadSeries
from carina.jobs.machine import whole_machine
from carina.pipeline.definition import load_definition
from carina.pipeline.foreign import OWN_IMAGES, UNASKED_MB

BASE_MB = 1500.0
"""Python, OpenVINO and the three networks with their windows."""

BYTES_PER_VOXEL = 20.0
"""What a run holds for each voxel at its peak: volume, masks, maps and what they are resampled to."""

MOST_CORES = 4
"""More cores shorten a run little: slices are written one after the other."""

LARGEST_SLICE = 1024 * 1024
"""Voxels of a slice whose header doesn't say."""


def voxels_of(source: Source) -> int:
    """How many voxels a chosen series or volume file has, by its headers; an upper bound for a packed file."""
    if isinstance(source, VolumeFile):
        return source.path.stat().st_size
    return len(source.instances) * source.rows * source.columns


def slice_voxels(file: Path) -> int:
    """The voxels of one DICOM file, by its header."""
    try:
        header = read_whole(file, stop_before_pixels=True, tags=["Rows", "Columns", "NumberOfFrames"])
        return int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    except (BadSeries, OSError, InvalidDicomError, AttributeError, TypeError, ValueError):
        return LARGEST_SLICE


def voxels_below(place: Path) -> int:
    """About how many voxels a run on a folder or volume file meets, at the price of one header.

    As many slices as the fullest folder below has files, each as large as the first of them.
    """
    if place.is_file():
        return place.stat().st_size
    try:
        files = walk(place).files
    except BadSeries:  # which its run will say
        return 0
    folders = Counter(file.parent for file in files)
    if not folders:
        return 0
    fullest, count = max(folders.items(), key=itemgetter(1))
    return count * slice_voxels(next(file for file in files if file.parent == fullest))


def memory_mb(voxels: int) -> float:
    """The memory in MB that a run on so many voxels takes at its peak."""
    return round(BASE_MB + BYTES_PER_VOXEL * voxels / 1e6, 1)


def others_mb(pipeline: str) -> float:
    """The memory in MB that a definition's programs of others may use, all of them at once; 0 where there are none.

    A name is that of a definition that ships; what can't be read will be said by its run.
    """
    file = Path(pipeline)
    try:
        steps = load_definition(file).steps if file.is_file() else ()
    except (BadConfig, OSError):
        return 0.0
    others = [one for one in steps if not one.container.image.startswith(OWN_IMAGES)]
    return float(sum(one.requests.memory_mb or UNASKED_MB for one in others))


def cores_of(settings: Settings) -> float:
    """The cores that a job asks for."""
    return float(settings.runtime.threads or min(MOST_CORES, whole_machine(settings).cores))
