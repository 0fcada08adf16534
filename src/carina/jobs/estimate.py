"""What a job will need, before it runs: memory by the size of its series, cores by the machine."""

from __future__ import annotations

from carina.config import Settings
from carina.dicom.series import Source, VolumeFile
from carina.jobs.machine import whole_machine

BASE_MB = 1500.0
"""Python, OpenVINO and the three networks with their windows."""

BYTES_PER_VOXEL = 20.0
"""What a run holds for each voxel at its peak: volume, masks, maps and what they are resampled to."""

MOST_CORES = 4
"""More cores shorten a run little: slices are written one after the other."""


def voxels_of(source: Source) -> int:
    """How many voxels a chosen series or volume file has, by its headers; an upper bound for a packed file."""
    if isinstance(source, VolumeFile):
        return source.path.stat().st_size
    return len(source.instances) * source.rows * source.columns


def memory_mb(voxels: int) -> float:
    """The memory in MB that a run on so many voxels takes at its peak."""
    return BASE_MB + BYTES_PER_VOXEL * voxels / 1e6


def cores_of(settings: Settings) -> float:
    """The cores that a job asks for."""
    return float(settings.runtime.threads or min(MOST_CORES, whole_machine(settings).cores))
