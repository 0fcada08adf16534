"""CT slices for the reader's tests: a field that is linear in patient space, so that truth is known everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SERIES_UID = "2.25.1001"
STUDY_UID = "2.25.1000"
ROWS, COLUMNS = 20, 24
PIXEL_MM = (1.5, 2.0)


def linear_hu(points_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """HU at patient-space points ``(..., 3)``: linear, so linear interpolation of it is exact."""
    return np.asarray(points_mm, dtype=np.float64) @ np.array([3.0, -2.0, 1.5]) - 500.0


def pixel_points(position: Sequence[float], orientation: Sequence[float] = AXIAL) -> npt.NDArray[np.float64]:
    """Patient-space points of a slice's pixel centres, ``(rows, columns, 3)``."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    return np.array(position) + rows[..., None] * PIXEL_MM[0] * down + columns[..., None] * PIXEL_MM[1] * right


def ct_slice(position: Sequence[float], number: int, orientation: Sequence[float] = AXIAL, **changes: Any) -> Dataset:
    """One slice of the linear field; ``changes`` sets attributes, None takes them out."""
    stored = np.rint(linear_hu(pixel_points(position, orientation))) + 1024
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.5{number:03d}"
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
        files.append(save(ct_slice(position, k + 1, **changes), folder / name))
    return files
