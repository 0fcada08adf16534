"""What a run is made from: one checked CT series, or a volume file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset

from carina.volume.grid import Axes, Triple


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One slice of a series: a single-frame object, or one frame of a multi-frame one.

    ``position_mm`` is the centre of the first pixel (Image Position Patient), ``(x, y, z)`` LPS.
    ``frame`` is the 1-based frame number in a multi-frame object, else None. Where a file's SOP Instance UID is
    empty or repeated, ``sop_instance_uid`` is derived from its series and content, so references stay consistent.
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    position_mm: Triple
    instance_number: int | None = None
    frame: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One CT acquisition, chosen and checked.

    ``instances`` are ordered along the slice normal, as the slices of the volume read from them. ``header`` is the
    first instance's dataset without pixel data. ``slice_axes`` are the unit vectors (LPS) of the slice normal, of
    growing row index and of growing column index; ``pixel_spacing_mm`` is (row step, column step).
    ``warnings`` are sentences for the manifest.
    """

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    header: Dataset
    instances: tuple[Instance, ...]
    rows: int
    columns: int
    pixel_spacing_mm: tuple[float, float]
    slice_axes: Axes
    warnings: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class VolumeFile:
    """A MetaImage, NIfTI or NRRD file: voxels without DICOM attributes, so results have no DICOM objects."""

    path: Path
    uid: str


Source = Series | VolumeFile
"""What the dicom-reader operator, and every writer of DICOM objects, is given."""
