"""Write a volume as a DICOM CT series, right or wrong on purpose, to test readers, networks and nodes with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from scipy import ndimage

from carina import RESEARCH_ONLY
from carina.volume import Volume
from carina.volume.grid import Triple

INTERCEPT_HU = -1024
"""HU are stored as 12-bit unsigned numbers above this; what lies outside -1024...3071 is clipped."""

StoredPlane = npt.NDArray[np.uint16]


def _jpeg_lossless(plane: StoredPlane) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.ljpeg_encode(plane, bitspersample=12))


def _jpeg_ls(plane: StoredPlane) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpegls_encode(plane))


def _jpeg_2000(plane: StoredPlane) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg2k_encode(plane, codecformat="j2k", reversible=True, bitspersample=12))


def _htj2k(plane: StoredPlane) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.htj2k_encode(plane, reversible=True))


def _rle(plane: StoredPlane) -> bytes:
    from pydicom.pixels.encoders.base import get_encoder

    options = {
        "rows": plane.shape[0],
        "columns": plane.shape[1],
        "samples_per_pixel": 1,
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
        "number_of_frames": 1,
    }
    return bytes(get_encoder(RLELossless).encode(plane, **options))


ENCODERS: dict[str, Callable[[StoredPlane], bytes]] = {
    RLELossless: _rle,
    JPEGLosslessSV1: _jpeg_lossless,
    JPEGLSLossless: _jpeg_ls,
    JPEG2000Lossless: _jpeg_2000,
    HTJ2KLossless: _htj2k,
}
"""Compressed transfer syntaxes that can be written, all lossless."""

TRANSFER_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, *ENCODERS)
"""Everything ``SeriesSettings.transfer_syntax`` may be."""


@dataclass(frozen=True, kw_only=True)
class SeriesSettings:
    """How a series is written; the defaults give a plain, valid CT series.

    ``tilt_degrees`` samples planes of a gantry tilted about the patient's x axis. The rest are faults: slice indices
    ``missing`` are not written, ``truncated`` files are cut in the middle, ``repeated_uids`` gives every file one SOP
    Instance UID, ``empty_uids`` none, ``pixel_data=False`` leaves the pixels out, modality ``MR`` writes MR images
    without a rescale. ``shuffled`` names files so that their order is not the slices' order.
    """

    transfer_syntax: str = ExplicitVRLittleEndian
    modality: str = "CT"
    patient_id: str = "PHANTOM"
    study: str = "study"
    series_number: int = 1
    description: str = "Synthetic chest"
    kernel: str = "STANDARD"
    tilt_degrees: float = 0.0
    missing: tuple[int, ...] = ()
    truncated: tuple[int, ...] = ()
    repeated_uids: bool = False
    empty_uids: bool = False
    pixel_data: bool = True
    shuffled: bool = True


DEFAULT_SETTINGS = SeriesSettings()


def write_ct_series(volume: Volume, folder: Path, *, settings: SeriesSettings = DEFAULT_SETTINGS) -> tuple[Path, ...]:
    """Write one file per slice into ``folder`` (made if missing) and return their paths in slice order.

    The Series Instance UID is the volume's ``uid`` when that is a valid UID, else derived from it; every other UID is
    derived too, so the same volume and settings give the same files byte for byte.

    Raises:
        ValueError: a transfer syntax that is not in ``TRANSFER_SYNTAXES``, or a tilt of a volume that is not axial.
    """
    if settings.transfer_syntax not in TRANSFER_SYNTAXES:
        known = ", ".join(UID(syntax).name for syntax in TRANSFER_SYNTAXES)
        raise ValueError(f"can't write transfer syntax {settings.transfer_syntax}; known are: {known}")
    folder.mkdir(parents=True, exist_ok=True)
    planes = _tilted(volume, settings.tilt_degrees) if settings.tilt_degrees else volume.hu
    paths = []
    for index in range(volume.grid.shape[0]):
        if index in settings.missing:
            continue
        dataset = _instance(volume, index, planes[index], settings)
        path = folder / _file_name(volume, index, settings)
        dataset.save_as(path, enforce_file_format=not settings.empty_uids)
        if index in settings.truncated:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
        paths.append(path)
    return tuple(paths)


def _uid(*words: object) -> str:
    digest = hashlib.sha256("/".join(str(word) for word in words).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def _file_name(volume: Volume, index: int, settings: SeriesSettings) -> str:
    if not settings.shuffled:
        return f"IM{index + 1:04d}.dcm"
    return hashlib.sha256(f"{volume.uid}/{index}".encode()).hexdigest()[:12].upper() + ".dcm"


def _tilted(volume: Volume, degrees: float) -> npt.NDArray[np.int16]:
    """Planes turned about the patient's x axis through their middle; the table still moves along z."""
    if volume.grid.axes != ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)):
        raise ValueError("a gantry tilt can only be simulated on an axial volume in LPS order")
    count, rows, columns = volume.grid.shape
    step_z, step_y, _ = volume.grid.spacing_mm
    angle = np.deg2rad(degrees)
    along = (np.arange(rows) - (rows - 1) / 2) * step_y
    row = (rows - 1) / 2 + along * np.cos(angle) / step_y
    planes = np.empty_like(volume.hu)
    for index in range(count):
        height = index + along * np.sin(angle) / step_z
        where = [np.repeat(axis[:, None], columns, axis=1) for axis in (height, row)]
        where.append(np.broadcast_to(np.arange(columns, dtype=np.float64), (rows, columns)))
        planes[index] = np.rint(ndimage.map_coordinates(volume.hu, where, output=np.float32, order=1, mode="nearest"))
    return planes


def _place(volume: Volume, index: int, degrees: float) -> tuple[Triple, tuple[float, ...]]:
    """Image Position (Patient) and Image Orientation (Patient) of a slice."""
    _, down, across = (np.array(axis) for axis in volume.grid.axes)
    position = volume.grid.points_mm([index, 0, 0])
    if degrees:
        angle = np.deg2rad(degrees)
        turned = np.array([0.0, np.cos(angle), np.sin(angle)])
        half = (volume.grid.shape[1] - 1) / 2 * volume.grid.spacing_mm[1]
        position, down = position + half * (down - turned), turned
    x, y, z = (float(value) for value in np.round(position, 6))
    return (x, y, z), tuple(float(value) for value in np.round((*across, *down), 9))


def _instance(volume: Volume, index: int, plane: npt.NDArray[np.int16], settings: SeriesSettings) -> Dataset:
    dataset = Dataset()
    is_ct = settings.modality == "CT"
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if is_ct else ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.SOPClassUID = CTImageStorage if is_ct else MRImageStorage
    instance = "" if settings.empty_uids else _uid(volume.uid, 0 if settings.repeated_uids else index)
    dataset.SOPInstanceUID = instance
    _patient_and_study(dataset, volume, settings)
    _series(dataset, volume, settings)
    dataset.InstanceNumber = index + 1
    position, orientation = _place(volume, index, settings.tilt_degrees)
    dataset.ImagePositionPatient = list(position)
    dataset.ImageOrientationPatient = list(orientation)
    dataset.SliceLocation = position[2]
    dataset.SliceThickness = round(volume.grid.spacing_mm[0], 6)
    dataset.PixelSpacing = [round(step, 6) for step in volume.grid.spacing_mm[1:]]
    dataset.ImageComments = RESEARCH_ONLY
    if is_ct:
        dataset.KVP, dataset.ConvolutionKernel = 120, settings.kernel
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = INTERCEPT_HU, 1, "HU"
        dataset.GantryDetectorTilt = settings.tilt_degrees
    else:
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
        dataset.MRAcquisitionType, dataset.EchoTime, dataset.EchoTrainLength = "2D", 10, 1
        dataset.RepetitionTime = 500
    dataset.WindowCenter, dataset.WindowWidth = -500, 1500
    _pixels(dataset, plane, settings)
    dataset.preamble = b"\0" * 128
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    dataset.file_meta.TransferSyntaxUID = UID(settings.transfer_syntax)
    dataset.file_meta.ImplementationClassUID = UID(_uid("carina phantom"))
    return dataset


def _patient_and_study(dataset: Dataset, volume: Volume, settings: SeriesSettings) -> None:
    dataset.PatientName, dataset.PatientID = "Phantom^Chest", settings.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyInstanceUID = _uid(volume.uid, settings.study)
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.StudyDescription = "CT chest (synthetic)"


def _series(dataset: Dataset, volume: Volume, settings: SeriesSettings) -> None:
    dataset.Modality = settings.modality
    valid = UID(volume.uid).is_valid and bool(volume.uid)
    dataset.SeriesInstanceUID = volume.uid if valid else _uid(volume.uid, "series")
    dataset.SeriesNumber, dataset.SeriesDescription = settings.series_number, settings.description
    dataset.SeriesDate, dataset.SeriesTime = "20200101", "120000"
    dataset.ContentDate, dataset.ContentTime = "20200101", "120000"
    dataset.AcquisitionDate, dataset.AcquisitionTime, dataset.AcquisitionNumber = "20200101", "120000", 1
    dataset.FrameOfReferenceUID = _uid(volume.uid, "frame of reference")
    dataset.PositionReferenceIndicator, dataset.PatientPosition = "", "HFS"
    dataset.BodyPartExamined = "CHEST"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Carina", "Phantom"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"


def _pixels(dataset: Dataset, plane: npt.NDArray[np.int16], settings: SeriesSettings) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if not settings.pixel_data:
        return
    stored = np.clip(plane.astype(np.int32) - INTERCEPT_HU, 0, 4095).astype(np.uint16)
    encoder = ENCODERS.get(settings.transfer_syntax)
    dataset.PixelData = encapsulate([encoder(stored)]) if encoder else stored.tobytes()
    dataset["PixelData"].VR = "OB" if encoder else "OW"
