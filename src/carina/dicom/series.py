"""What a run is made from: one checked CT series, or a volume file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset

from carina.dicom.inventory import FileCounts, Inventory
from carina.volume.grid import Axes, Triple

NOTHING = Inventory()


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One slice of a series: a single-frame object, or one frame of a multi-frame one.

    ``position_mm`` is the centre of the first pixel (Image Position Patient), ``(x, y, z)`` LPS.
    ``frame`` is the 1-based frame number in a multi-frame object, else None. Where a file's SOP Instance UID is
    empty or repeated, ``sop_instance_uid`` is derived from its series and content, so references stay consistent.
    ``rescale`` is (Rescale Slope, Rescale Intercept).
    """

    path: Path
    sop_instance_uid: str
    sop_class_uid: str
    position_mm: Triple
    instance_number: int | None = None
    frame: int | None = None
    rescale: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One CT acquisition, chosen and checked.

    ``instances`` are ordered along the slice normal, as the slices of the volume read from them. ``header`` is the
    first instance's dataset without pixel data. ``slice_axes`` are the unit vectors (LPS) of the slice normal, of
    growing row index and of growing column index; ``pixel_spacing_mm`` is (row step, column step).
    ``warnings`` are sentences for the manifest. ``inventory`` is of the path that the series was found below.
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
    inventory: Inventory = field(default=NOTHING, repr=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the slices lie in."""
        return tuple(dict.fromkeys(instance.path for instance in self.instances))

    @property
    def counts(self) -> FileCounts:
        """What became of every file of the path that the series was found below."""
        return self.inventory.counts(self.files)


@dataclass(frozen=True, kw_only=True)
class VolumeFile:
    """A MetaImage, NIfTI or NRRD file: voxels without DICOM attributes, so results have no DICOM objects.

    ``data`` are further files that its voxels lie in (MetaImage and NRRD may keep them apart).
    """

    path: Path
    uid: str
    data: tuple[Path, ...] = field(default=(), compare=False)
    inventory: Inventory = field(default=NOTHING, repr=False, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file and those that its voxels lie in."""
        return (self.path, *self.data)

    @property
    def counts(self) -> FileCounts:
        """What became of every file of the path that this one was found below."""
        return self.inventory.counts(self.files)


Source = Series | VolumeFile
"""What the dicom-reader operator, and every writer of DICOM objects, is given."""
