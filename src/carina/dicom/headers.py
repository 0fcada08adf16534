"""What the headers below a path say: one frozen value for each slice, read without its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carina.dicom.part10 import DEFLATED, NATIVE, OpenFile, attribute, number, numbers, open_file, text
from carina.errors import BadSeries
from carina.volume.grid import Triple

DICOMDIR = "1.2.840.10008.1.3.10"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = (CT_IMAGE, "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""CT Image, Enhanced CT Image and Legacy Converted Enhanced CT Image Storage."""

KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "ImageType",
    "SeriesDescription",
    "SeriesNumber",
    "BodyPartExamined",
    "ConvolutionKernel",
    "SliceThickness",
    "GantryDetectorTilt",
    "InstanceNumber",
    "AcquisitionNumber",
    "EchoNumbers",
    "AcquisitionTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "KVP",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "LossyImageCompression",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""What is read from each file of a folder; the rest of a header is skipped."""

APART = (
    "AcquisitionNumber",
    "ImageType",
    "EchoNumbers",
    "ConvolutionKernel",
    "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "KVP",
    "SliceThickness",
    "FrameType",
    "StackID",
    "FrameAcquisitionNumber",
    "TemporalPositionIndex",
)
"""Attributes that may tell two acquisitions or reconstructions within one series apart, the likeliest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """The facts of one slice (a single-frame object, or one frame of a multi-frame one) that reading turns on.

    Absent attributes are None or empty. ``position_mm`` is ``(x, y, z)``, ``orientation`` the six direction cosines of
    Image Orientation (Patient), ``pixel_spacing_mm`` (row step, column step). ``pixels`` is empty where pixel
    data is there, else says what is wrong with it. ``apart`` has a text for each keyword of ``APART``.
    """

    path: Path
    frame: int | None
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    transfer_syntax: str
    modality: str
    image_type: tuple[str, ...]
    description: str
    body_part: str
    kernel: str
    instance_number: int | None
    tilt_deg: float
    position_mm: Triple | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, float] | None
    rows: int
    columns: int
    samples: int
    bits: int
    photometric: str
    slope: float | None
    intercept: float | None
    rescale_type: str
    is_lossy: bool
    pixels: str
    apart: tuple[str, ...]


def slice_headers(path: Path) -> list[SliceHeader]:
    """The slices that one file holds: none if it is no DICOM file or a DICOMDIR, several if it is multi-frame.

    Raises:
        BadSeries: the file is DICOM but broken.
    """
    opened = open_file(path, KEYWORDS)
    if opened is None:
        return []
    meta = getattr(opened.dataset, "file_meta", None)
    stored = getattr(meta, "MediaStorageSOPClassUID", None)
    if DICOMDIR in (opened.dataset.get("SOPClassUID"), stored):
        return []
    if not (opened.dataset.get("SOPClassUID") or opened.dataset.get("Modality")):
        if stored is None:
            return []
        raise BadSeries("series.truncated", f"{path.name}: it is truncated within its header; send the file again.")
    count = int(number(attribute(opened.dataset, "NumberOfFrames")) or 1)
    is_multi = "PerFrameFunctionalGroupsSequence" in opened.dataset or count > 1
    pixels = _pixel_problem(opened, count)
    frames: Sequence[int | None] = range(1, count + 1) if is_multi else (None,)
    return [_slice_header(opened, frame, pixels) for frame in frames]


def _pixel_problem(opened: OpenFile, frames: int) -> str:
    """What is wrong with a file's pixel data, in words; empty where nothing is."""
    if not opened.has_pixels:
        return "it has no pixel data"
    if opened.encapsulated is not None and not opened.encapsulated.is_complete:
        return "it is truncated: its pixel data ends early"
    dataset = opened.dataset
    size = [int(number(attribute(dataset, k)) or 0) for k in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    needed = size[0] * size[1] * max(size[2], 1) * size[3] // 8 * frames
    if opened.pixel_bytes is not None and opened.transfer_syntax in (*NATIVE, *DEFLATED):
        there = opened.pixel_bytes
        if opened.pixel_offset is not None:
            there = min(there, opened.file_bytes - opened.pixel_offset)
        if there < needed:
            return f"it is truncated: its pixel data has {there} of {needed} bytes"
    return ""


def _kind(opened: OpenFile) -> tuple[str, str]:
    """SOP Class UID and Modality; where anonymisation has emptied one, it follows from the other for CT."""
    meta = getattr(opened.dataset, "file_meta", None)
    stated = attribute(opened.dataset, "SOPClassUID") or getattr(meta, "MediaStorageSOPClassUID", None)
    modality = text(attribute(opened.dataset, "Modality"))
    sop_class = text(stated) or (CT_IMAGE if modality == "CT" else "")
    return sop_class, modality or ("CT" if sop_class in CT_CLASSES else "")


def _slice_header(opened: OpenFile, frame: int | None, pixels: str) -> SliceHeader:
    dataset = opened.dataset

    def get(keyword: str) -> Any:
        return attribute(dataset, keyword, frame)

    position, spacing = numbers(get("ImagePositionPatient"), 3), numbers(get("PixelSpacing"), 2)
    instance = number(get("InstanceNumber"))
    image_type = get("FrameType") if frame is not None and get("FrameType") else get("ImageType")
    sop_class, modality = _kind(opened)
    return SliceHeader(
        path=opened.path,
        frame=frame,
        sop_class_uid=sop_class,
        sop_instance_uid=text(get("SOPInstanceUID")),
        study_uid=text(get("StudyInstanceUID")),
        series_uid=text(get("SeriesInstanceUID")),
        frame_of_reference_uid=text(get("FrameOfReferenceUID")),
        transfer_syntax=opened.transfer_syntax,
        modality=modality,
        image_type=tuple(part.strip().upper() for part in text(image_type).split("\\")) if image_type else (),
        description=text(get("SeriesDescription")),
        body_part=text(get("BodyPartExamined")),
        kernel=text(get("ConvolutionKernel")),
        instance_number=None if instance is None else int(instance),
        tilt_deg=number(get("GantryDetectorTilt")) or 0.0,
        position_mm=(position[0], position[1], position[2]) if position else None,
        orientation=numbers(get("ImageOrientationPatient"), 6),
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        rows=int(number(get("Rows")) or 0),
        columns=int(number(get("Columns")) or 0),
        samples=int(number(get("SamplesPerPixel")) or 1),
        bits=int(number(get("BitsAllocated")) or 0),
        photometric=text(get("PhotometricInterpretation")),
        slope=number(get("RescaleSlope")),
        intercept=number(get("RescaleIntercept")),
        rescale_type=text(get("RescaleType")).upper(),
        is_lossy=text(get("LossyImageCompression")) == "01",
        pixels=pixels,
        apart=tuple(text(get(keyword)) for keyword in APART),
    )
