"""One DICOM file (PS3.10), read up to its pixel data; attributes taken from it with care."""

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

from carina.dicom.fragments import Encapsulated, find_fragments
from carina.errors import BadSeries

DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
IMPLICIT = "1.2.840.10008.1.2"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN)

UNDEFINED_LENGTH = 0xFFFFFFFF

META_BYTES = 1024
"""File meta information hardly exceeds this."""

BROKEN = (ValueError, TypeError, AttributeError, OverflowError, NotImplementedError, struct.error)
"""What pydicom raises for an element whose value does not fit its VR."""

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


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    """A DICOM file read up to its pixel data.

    ``pixel_offset`` is where the Pixel Data element's value begins in the file (None: there is none, or the file is
    deflated and the value is in ``dataset``); ``pixel_bytes`` is its length, None where that is undefined, and then
    ``encapsulated`` says where the frames lie. ``file_bytes`` is the file's size.
    """

    path: Path
    dataset: Dataset
    transfer_syntax: str
    pixel_offset: int | None
    pixel_bytes: int | None
    file_bytes: int
    encapsulated: Encapsulated | None = None

    @property
    def has_pixels(self) -> bool:
        """Whether there is a Pixel Data element."""
        return self.pixel_offset is not None or self.pixel_bytes is not None


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
    size = os.fstat(stream.fileno()).st_size
    if _is_deflated(stream):
        wanted = None if keywords is None else [*keywords, "PixelData"]
        dataset = dcmread(stream, specific_tags=wanted)
        length = len(dataset.PixelData) if "PixelData" in dataset else None
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        return OpenFile(
            path=path, dataset=dataset, transfer_syntax=syntax, pixel_offset=None, pixel_bytes=length, file_bytes=size
        )
    wanted = None if keywords is None else list(keywords)
    dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=wanted)
    syntax = _transfer_syntax(dataset)
    start, length = _pixel_element(stream, stream.tell(), syntax)
    is_encapsulated = start is not None and syntax not in NATIVE
    return OpenFile(
        path=path,
        dataset=dataset,
        transfer_syntax=syntax,
        pixel_offset=start,
        pixel_bytes=length,
        file_bytes=size,
        encapsulated=find_fragments(stream, start, size) if start is not None and is_encapsulated else None,
    )


def _is_deflated(stream: BinaryIO) -> bool:
    """Whether the meta information names a deflated transfer syntax; the stream is put back to its beginning."""
    head = stream.read(META_BYTES)
    stream.seek(0)
    return head[128:132] == b"DICM" and any(uid.encode() in head for uid in DEFLATED)


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
    """An attribute's value, for a multi-frame object from its per-frame or shared functional group.

    None where it is absent, empty, or broken: what needs it says so.
    """
    try:
        value = _grouped(dataset, keyword, frame) if frame is not None and keyword in GROUPS else None
        value = dataset.get(keyword) if value is None else value
    except BROKEN:
        return None
    return None if value == "" else value


def _grouped(dataset: Dataset, keyword: str, frame: int) -> Any:
    for item in _functional_groups(dataset, frame):
        group = item.get(GROUPS[keyword])
        value = group[0].get(keyword) if group else None
        if value is not None:
            return value
    return None


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
