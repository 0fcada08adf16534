"""What the headers below a path say: one frozen value for each slice, read without its pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from carina.errors import BadSeries
from carina.volume.grid import Triple

DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN)

UNDEFINED_LENGTH = 0xFFFFFFFF

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

GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "StackID": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
}
"""Which functional group of a multi-frame object holds an attribute (PS3.3 C.7.6.16)."""

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


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    """A DICOM file read up to its pixel data.

    ``pixel_offset`` is where the Pixel Data element's value begins in the file (None: there is none, or the file is
    deflated and the value is in ``dataset``); ``pixel_bytes`` is its length, None where that is undefined
    (encapsulated). ``file_bytes`` is the file's size.
    """

    path: Path
    dataset: Dataset
    transfer_syntax: str
    pixel_offset: int | None
    pixel_bytes: int | None
    file_bytes: int


def open_file(path: Path, keywords: Sequence[str] | None = None) -> OpenFile | None:
    """Read a file up to its pixel data; None where it is no DICOM file.

    ``keywords`` limits what is read (None: everything). A deflated file is read whole, pixel data included.

    Raises:
        BadSeries: the file is DICOM but can't be parsed, or can't be opened.
    """
    try:
        with path.open("rb") as stream:
            if not _looks_like_dicom(stream):
                return None
            return _parse(path, stream, keywords)
    except OSError as error:
        raise BadSeries("series.unreadable", f"{path.name}: can't be read ({error.strerror or error}).") from error
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom raises whatever a broken element leads to
        raise BadSeries(
            "series.truncated", f"{path.name}: broken DICOM header ({error}); send the file again."
        ) from error


def _parse(path: Path, stream: BinaryIO, keywords: Sequence[str] | None) -> OpenFile:
    wanted = list(keywords) if keywords is not None else None
    dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=wanted)
    offset = stream.tell()
    size = os.fstat(stream.fileno()).st_size
    syntax = _transfer_syntax(dataset)
    if syntax in DEFLATED:
        stream.seek(0)
        dataset = dcmread(stream, force=True, specific_tags=[*wanted, "PixelData"] if wanted else None)
        length = len(dataset.PixelData) if "PixelData" in dataset else None
        return OpenFile(
            path=path, dataset=dataset, transfer_syntax=syntax, pixel_offset=None, pixel_bytes=length, file_bytes=size
        )
    start, length = _pixel_element(stream, offset, syntax)
    return OpenFile(
        path=path, dataset=dataset, transfer_syntax=syntax, pixel_offset=start, pixel_bytes=length, file_bytes=size
    )


def _looks_like_dicom(stream: BinaryIO) -> bool:
    """Whether a file has the preamble, or at least begins with a plausible element of group 2 or 8 (PS3.10 7.1)."""
    head = stream.read(132)
    stream.seek(0)
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(order + "HH", head)
        if group in (0x0002, 0x0008) and element <= 0x1199:
            explicit = head[4:6].isalpha() and head[4:6].isupper()
            (length,) = struct.unpack_from(order + "I", head, 4)
            return explicit or length <= 1024
    return False


def _transfer_syntax(dataset: Dataset) -> str:
    stated = str(getattr(dataset.file_meta, "TransferSyntaxUID", "") or "") if hasattr(dataset, "file_meta") else ""
    if stated:
        return stated
    implicit, little = dataset.original_encoding
    if not little:
        return BIG_ENDIAN
    return IMPLICIT if implicit else NATIVE[1]


def _pixel_element(stream: BinaryIO, offset: int, syntax: str) -> tuple[int | None, int | None]:
    """Where Pixel Data's value begins and how long it is: the parser stopped at the element's tag (PS3.5 7.1)."""
    stream.seek(offset)
    head = stream.read(12)
    order = ">" if syntax == BIG_ENDIAN else "<"
    if len(head) < 8 or struct.unpack_from(order + "HH", head) != (0x7FE0, 0x0010):
        return None, None
    if head[4:6] in (b"OB", b"OW", b"UN"):
        if len(head) < 12:
            return None, None
        (length,) = struct.unpack_from(order + "I", head, 8)
        start = offset + 12
    else:
        (length,) = struct.unpack_from(order + "I", head, 4)
        start = offset + 8
    return start, None if length == UNDEFINED_LENGTH else length


def attribute(dataset: Dataset, keyword: str, frame: int | None = None) -> Any:
    """An attribute's value, for a multi-frame object from its per-frame or shared functional group; None if absent."""
    if frame is not None and keyword in GROUPS:
        for item in _functional_groups(dataset, frame):
            group = item.get(GROUPS[keyword])
            value = group[0].get(keyword) if group else None
            if value is not None:
                return value
    value = dataset.get(keyword)
    return None if value == "" else value


def _functional_groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    if 0 < frame <= len(per_frame):
        yield per_frame[frame - 1]
    yield from (dataset.get("SharedFunctionalGroupsSequence") or ())


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite floats, or None."""
    try:
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(abs(v) < 1e9 for v in found) else None


def number(value: Any) -> float | None:
    """A float, or None where the attribute is absent, empty or no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def text(value: Any) -> str:
    """One line of text; several values are joined by a backslash as DICOM does."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple, MultiValue)):
        return "\\".join(str(v).strip() for v in value)
    return str(value).strip()


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
    count = int(number(opened.dataset.get("NumberOfFrames")) or 1)
    is_multi = "PerFrameFunctionalGroupsSequence" in opened.dataset or count > 1
    pixels = _pixel_problem(opened, count)
    frames: Sequence[int | None] = range(1, count + 1) if is_multi else (None,)
    return [_slice_header(opened, frame, pixels) for frame in frames]


def _pixel_problem(opened: OpenFile, frames: int) -> str:
    """What is wrong with a file's pixel data, in words; empty where nothing is."""
    if opened.pixel_offset is None and opened.pixel_bytes is None:
        return "it has no pixel data"
    dataset = opened.dataset
    size = [int(number(dataset.get(k)) or 0) for k in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    needed = size[0] * size[1] * max(size[2], 1) * size[3] // 8 * frames
    if opened.pixel_bytes is not None and opened.transfer_syntax in (*NATIVE, *DEFLATED):
        there = opened.pixel_bytes
        if opened.pixel_offset is not None:
            there = min(there, opened.file_bytes - opened.pixel_offset)
        if there < needed:
            return f"it is truncated: its pixel data has {there} of {needed} bytes"
    return ""


def _slice_header(opened: OpenFile, frame: int | None, pixels: str) -> SliceHeader:
    dataset = opened.dataset

    def get(keyword: str) -> Any:
        return attribute(dataset, keyword, frame)

    position, spacing = numbers(get("ImagePositionPatient"), 3), numbers(get("PixelSpacing"), 2)
    instance = number(get("InstanceNumber"))
    image_type = get("FrameType") if frame is not None and get("FrameType") else get("ImageType")
    return SliceHeader(
        path=opened.path,
        frame=frame,
        sop_class_uid=text(get("SOPClassUID")),
        sop_instance_uid=text(get("SOPInstanceUID")),
        study_uid=text(get("StudyInstanceUID")),
        series_uid=text(get("SeriesInstanceUID")),
        frame_of_reference_uid=text(get("FrameOfReferenceUID")),
        transfer_syntax=opened.transfer_syntax,
        modality=text(get("Modality")),
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
