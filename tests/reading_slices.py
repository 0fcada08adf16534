"""CT slices for the reader's tests: a field that is linear in patient space, so that truth is known everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from carina.dicom.find import choose_source, find_series
from carina.dicom.rules import Prefer, Rules
from carina.dicom.series import Series
from carina.errors import BadSeries
from carina.volume import Grid, Mask, Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES_UID = "2.25.1001"
STUDY_UID = "2.25.1000"
ROWS, COLUMNS = 20, 24
PIXEL_MM = (1.5, 2.0)
EVEN = [2.5 * k for k in range(12)]
ANY = Rules(min_slices=2, plane="any", min_matrix=8, prefer=Prefer(coverage_mm=0.0))


def linear_hu(points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """HU at patient-space points ``(..., 3)``: linear, so linear interpolation of it is exact."""
    hu: npt.NDArray[np.float64] = np.asarray(points_mm, dtype=np.float64) @ np.array([3.0, -2.0, 1.5]) - 500.0
    return hu


def pixel_points(position: Sequence[float], orientation: Sequence[float] = AXIAL) -> npt.NDArray[np.float64]:
    """Patient-space points of a slice's pixel centres, ``(rows, columns, 3)``."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    across: npt.NDArray[np.float64] = rows[..., None] * PIXEL_MM[0] * down + columns[..., None] * PIXEL_MM[1] * right
    return np.array(position, dtype=np.float64) + across


def ct_slice(position: Sequence[float], number: int, orientation: Sequence[float] = AXIAL, **changes: Any) -> Dataset:
    """One slice of the linear field; ``changes`` sets attributes, None takes them out."""
    stored = np.rint(linear_hu(pixel_points(position, orientation))) + 1024
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.5{number:03d}")
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"2.25.5{number:03d}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, SERIES_UID
    dataset.FrameOfReferenceUID = "2.25.1002"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription, dataset.ConvolutionKernel, dataset.BodyPartExamined = "Chest", "STANDARD", "CHEST"
    dataset.PatientName = "Secret^Name"
    dataset.InstanceNumber, dataset.AcquisitionNumber = number, 1
    dataset.SliceThickness = 99.0
    dataset.ImagePositionPatient = [float(v) for v in position]
    dataset.ImageOrientationPatient = [float(v) for v in orientation]
    dataset.PixelSpacing = list(PIXEL_MM)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = stored.astype("<u2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, file: Path) -> Path:
    """Write a dataset with its meta information."""
    file.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(file, enforce_file_format=True)
    return file


def write_series(
    folder: Path,
    heights_mm: Sequence[float],
    *,
    step: Sequence[float] = (0.0, 0.0, 1.0),
    prefix: str = "",
    **changes: Any,
) -> list[Path]:
    """Write slices at the given distances along ``step``, in an order that is neither the names' nor the numbers'."""
    files = []
    for k, height in enumerate(heights_mm):
        position = np.array([-20.0, -10.0, 100.0]) + height * np.array(step)
        name = f"{prefix}{(k * 7) % 1009:03d}"
        files.append(save(ct_slice(position.tolist(), k + 1, **changes), folder / name))
    return files


def series_of(folder: Path, rules: Rules = ANY) -> Series:
    source = choose_source(find_series(folder, rules), rules)
    assert isinstance(source, Series)
    return source


def refusal(path: Path, rules: Rules = ANY) -> BadSeries:
    with pytest.raises(BadSeries) as caught:
        choose_source(find_series(path, rules), rules)
    assert "Secret" not in caught.value.message
    return caught.value


def voxel_points(grid: Grid) -> np.ndarray:
    return grid.points_mm(np.moveaxis(np.indices(grid.shape), 0, -1))


def assert_linear(volume: Volume, *, inside: Any = (slice(None),) * 3, within_hu: float = 0.51) -> None:
    """Every voxel's value is the field's at the place where its grid says it lies."""
    wanted = linear_hu(voxel_points(volume.grid))
    assert np.abs(volume.hu - wanted)[inside].max() <= within_hu


def rebuilt(dataset: Dataset) -> Dataset:
    """The same elements without memory of the encoding they were read in."""
    fresh = Dataset()
    fresh.file_meta = dataset.file_meta
    fresh.update({element.tag: element for element in dataset})
    return fresh


def full_mask(volume: Volume) -> Mask:
    return Mask(labels=np.ones(volume.grid.shape, np.uint8), grid=volume.grid, names={1: "all"}, uid=volume.uid)


def enhanced(heights: Sequence[float], **shared: Any) -> Dataset:
    """An Enhanced CT object whose geometry is in its functional groups only, frames out of order."""
    slices = [ct_slice((-20.0, -10.0, 100.0 + h), k + 1) for k, h in enumerate(heights)]
    dataset = slices[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(dataset, keyword)
    dataset.NumberOfFrames = len(slices)
    common, measures, orientation, values = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = list(PIXEL_MM)
    orientation.ImageOrientationPatient = list(AXIAL)
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
    for keyword, value in shared.items():
        setattr(values, keyword, value)
    common.PixelMeasuresSequence, common.PlaneOrientationSequence = [measures], [orientation]
    common.PixelValueTransformationSequence = [values]
    dataset.SharedFunctionalGroupsSequence = [common]
    frames = []
    for height in heights:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [-20.0, -10.0, 100.0 + height]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = b"".join(one.PixelData for one in slices)
    return dataset
