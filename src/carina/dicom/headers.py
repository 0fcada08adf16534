"""What the headers below a path say: one frozen value for each slice, read without its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import UID

from carina.dicom.fragments import DamagedFrame
from carina.dicom.layout import LAYOUT_KEYWORDS, ImpossibleLayout, layout_of, whole
from carina.dicom.part10 import OpenFile, open_file
from carina.dicom.patients import patient_of
from carina.dicom.syntaxes import unread
from carina.dicom.uids import derived_uid, is_uid
from carina.dicom.values import named, numbers_of, shown
from carina.errors import BadSeries
from carina.volume.grid import Triple

DICOMDIR = "1.2.840.10008.1.3.10"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
CT_CLASSES = (CT_IMAGE, "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""CT Image, Enhanced CT Image and Legacy Converted Enhanced CT Image Storage."""

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

KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "Modality",
    "SeriesDescription",
    "SeriesNumber",
    "BodyPartExamined",
    "GantryDetectorTilt",
    "InstanceNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "LossyImageCompression",
    *LAYOUT_KEYWORDS,
    *APART,
)
"""What is read from each file of a folder; the rest of a header is skipped."""

UIDS = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")

MOST_FRAMES = 1 << 16
"""Frames of one file; the largest multi-frame CT has a third of it."""

NO_IMAGE = "series.no-image"
"""The code of what is whole without pixel data; an image that has lost its own is ``series.no-pixels``."""

GRAYSCALE = frozenset({"MONOCHROME1", "MONOCHROME2", ""})


Numbers = tuple[float, ...] | None


class Expected(NamedTuple):
    """What a numeric attribute must hold: how many numbers, of which kind, in words."""

    numbers: int
    words: str
    fits: Callable[[float], bool]


NUMBERS = {
    "RescaleSlope": Expected(1, "a number above 0 and at most 10000", lambda v: 0 < v <= 1e4),
    "RescaleIntercept": Expected(1, "a number of HU, at most a million", lambda v: abs(v) <= 1e6),
    "PixelSpacing": Expected(2, "two numbers of mm above 0 and at most a million", lambda v: 0 < v <= 1e6),
    "ImagePositionPatient": Expected(3, "three numbers of mm, at most a million each", lambda v: abs(v) <= 1e6),
    "ImageOrientationPatient": Expected(6, "six direction cosines from -1 to 1", lambda v: abs(v) <= 2),
}
"""The numbers without which there is no volume, and what they can be at the very most."""


@dataclass(frozen=True, kw_only=True)
class SliceProblem:
    """One reason why slices can't be used: a stable code and a clause."""

    code: str
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """The facts of one slice (a single-frame object, or one frame of a multi-frame one) that reading depends on.

    Absent attributes are None or empty. Texts are one line each. UIDs are valid or empty: one that is none is replaced
    by one that is derived from it. ``position_mm`` is ``(x, y, z)``, ``orientation`` the six direction cosines of
    Image Orientation (Patient), ``pixel_spacing_mm`` (row step, column step). ``pixels`` is None where pixel
    data is there and as the header says, else what is wrong with it. ``faults`` says by keyword why a number is None
    although something is there. ``notes`` are sentences for the manifest. ``apart`` has a text for each keyword of
    ``APART``. ``patient`` is a digest of Patient ID, or else of Patient's Name; empty where both are. ``acquired`` is
    the date and time of acquisition as DICOM writes them, to be compared.
    """

    path: Path
    frame: int | None
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    patient: str
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
    pixels: SliceProblem | None
    acquired: str
    apart: tuple[str, ...]
    faults: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def slice_headers(path: Path) -> list[SliceHeader]:
    """The slices that one file holds: none if it is no DICOM file or a DICOMDIR, several if it is multi-frame.

    Raises:
        BadSeries: the file is DICOM but broken, or can't be read.
    """
    opened = open_file(path, KEYWORDS)
    return [] if opened is None else slices_of(opened)


def slices_of(opened: OpenFile) -> list[SliceHeader]:
    """The slices of a file that was opened for ``KEYWORDS``.

    Raises:
        BadSeries: as ``slice_headers``.
    """
    path = opened.path
    if DICOMDIR in (opened.text("SOPClassUID"), opened.sop_class):
        return []
    if not (opened.text("SOPClassUID") or opened.text("Modality")):
        if not opened.has_preamble:
            return []
        raise BadSeries("series.truncated", f"{path.name}: it is truncated within its header; send the file again.")
    pixels = _pixels(opened)
    is_multi = bool(opened.frames) or pixels.frames > 1
    frames: Sequence[int | None] = range(1, pixels.frames + 1) if is_multi else (None,)
    return [_slice_header(opened, frame, pixels) for frame in frames]


def is_image(rows: float | None, sop_class_uid: str) -> bool:
    """Whether an object must have pixel data; reports and a scanner's raw data need none."""
    return bool(rows) or "Image Storage" in UID(sop_class_uid).name


class _Pixels(NamedTuple):
    """How many frames a file holds, at least one, and what is wrong with its pixel data."""

    frames: int = 1
    problem: SliceProblem | None = None


def _pixels(opened: OpenFile) -> _Pixels:
    """Compare what a header says of its pixel data with what is there.

    Raises:
        BadSeries: there are more frames than any CT has.
    """
    if not opened.has_pixels and not is_image(opened.number("Rows"), _kind(opened)[0]):
        return _Pixels(problem=SliceProblem(code=NO_IMAGE, words="it is no image"))
    if not opened.has_pixels:
        return _Pixels(problem=SliceProblem(code="series.no-pixels", words="it has no pixel data"))
    if words := unread(opened.transfer_syntax):
        return _Pixels(problem=SliceProblem(code="series.transfer-syntax", words=words))
    try:
        claimed = max(whole(opened, "NumberOfFrames", 1), 1)
        found = _compressed(opened, claimed) if opened.encapsulated else _native(opened, claimed)
        if found.problem is None and opened.text("PhotometricInterpretation") in GRAYSCALE:
            layout_of(opened)
    except ImpossibleLayout as error:
        return _Pixels(problem=SliceProblem(code=error.code, words=str(error)))
    if found.frames > MOST_FRAMES:
        words = f"it has {found.frames} frames; at most {MOST_FRAMES} are read"
        raise BadSeries("series.memory", f"{opened.path.name}: {words}.")
    return found


def _native(opened: OpenFile, claimed: int) -> _Pixels:
    size = [whole(opened, k, 0) for k in ("Rows", "Columns", "BitsAllocated")]
    frame_bytes = size[0] * size[1] * size[2] * max(whole(opened, "SamplesPerPixel", 1), 1) // 8
    if opened.pixel_bytes is None:
        return _truncated("its pixel data has no length, yet is not compressed")
    if opened.pixel_bytes < frame_bytes * claimed:
        words = f"its pixel data has {opened.pixel_bytes} of {frame_bytes * claimed} bytes"
        return _truncated(words, min(claimed, opened.pixel_bytes // frame_bytes))
    return _Pixels(claimed if frame_bytes else 1)


def _compressed(opened: OpenFile, claimed: int) -> _Pixels:
    there = opened.encapsulated
    if there is None or not there.is_complete:
        return _truncated("its pixel data ends early")
    if claimed > len(there.fragments):
        words = f"its pixel data has {len(there.fragments)} fragments for {claimed} frames"
        return _truncated(words, len(there.fragments))
    try:
        there.frames(claimed)
    except DamagedFrame as error:
        return _Pixels(problem=SliceProblem(code="series.decode", words=f"its frames can't be told apart: {error}"))
    return _Pixels(claimed)


def _truncated(words: str, frames: int = 1) -> _Pixels:
    return _Pixels(max(frames, 1), SliceProblem(code="series.truncated", words=f"it is truncated: {words}"))


def _slice_header(opened: OpenFile, frame: int | None, pixels: _Pixels) -> SliceHeader:
    def text(keyword: str) -> str:
        return opened.text(keyword, frame)

    def count(keyword: str, absent: int) -> int:
        return int(opened.number(keyword) or absent)

    uids, notes = _uids(opened)
    values, faults = _numbers(opened, frame)
    instance = opened.number("InstanceNumber")
    image_type = (text("FrameType") if frame is not None else "") or text("ImageType")
    sop_class, modality = _kind(opened)
    return SliceHeader(
        path=opened.path,
        frame=frame,
        sop_class_uid=sop_class,
        sop_instance_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        frame_of_reference_uid=uids["FrameOfReferenceUID"],
        patient=patient_of(opened),
        transfer_syntax=opened.transfer_syntax,
        modality=modality,
        image_type=tuple(part.strip().upper() for part in image_type.split("\\")) if image_type else (),
        description=text("SeriesDescription"),
        body_part=text("BodyPartExamined"),
        kernel=text("ConvolutionKernel"),
        instance_number=None if instance is None else int(instance),
        tilt_deg=opened.number("GantryDetectorTilt") or 0.0,
        position_mm=_triple(values["ImagePositionPatient"]),
        orientation=values["ImageOrientationPatient"],
        pixel_spacing_mm=_pair(values["PixelSpacing"]),
        rows=count("Rows", 0),
        columns=count("Columns", 0),
        samples=count("SamplesPerPixel", 1),
        bits=count("BitsAllocated", 0),
        photometric=text("PhotometricInterpretation"),
        slope=_single(values["RescaleSlope"]),
        intercept=_single(values["RescaleIntercept"]),
        rescale_type=text("RescaleType").upper(),
        is_lossy=text("LossyImageCompression") == "01",
        pixels=pixels.problem,
        faults=faults,
        notes=notes,
        acquired=text("AcquisitionDateTime") or text("AcquisitionDate") + text("AcquisitionTime"),
        apart=tuple(text(keyword) for keyword in APART),
    )


def _single(values: Numbers) -> float | None:
    return values[0] if values else None


def _pair(values: Numbers) -> tuple[float, float] | None:
    return (values[0], values[1]) if values else None


def _triple(values: Numbers) -> Triple | None:
    return (values[0], values[1], values[2]) if values else None


def _numbers(opened: OpenFile, frame: int | None) -> tuple[dict[str, Numbers], dict[str, str]]:
    """The numbers of ``NUMBERS`` by keyword, None where they are not as expected, and then what is there instead."""
    values: dict[str, Numbers] = {}
    faults: dict[str, str] = {}
    for keyword, expected in NUMBERS.items():
        raw = opened.raw(keyword, frame)
        found = numbers_of(raw, expected.numbers)
        fits = found is not None and all(expected.fits(v) for v in found)
        values[keyword] = found if fits else None
        if not fits and raw is not None and not raw.is_empty:
            faults[keyword] = f"{named(keyword)} is {shown(raw)}, expected {expected.words}"
    return values, faults


def _uids(opened: OpenFile) -> tuple[dict[str, str], tuple[str, ...]]:
    """The UIDs by keyword, and what was done where one is none; it is not quoted, it may be a name."""
    found: dict[str, str] = {}
    notes: list[str] = []
    for keyword in UIDS:
        stated = opened.text(keyword)
        if stated and not is_uid(stated):
            notes.append(f"{named(keyword)} is no UID ({len(stated)} characters); one derived from it is used.")
            stated = derived_uid(keyword, stated)
        found[keyword] = stated
    return found, tuple(notes)


def _kind(opened: OpenFile) -> tuple[str, str]:
    """SOP Class UID and Modality; where anonymisation has emptied one, it follows from the other for CT."""
    modality = opened.text("Modality")
    stated = next((uid for uid in (opened.text("SOPClassUID"), opened.sop_class) if uid and is_uid(uid)), "")
    sop_class = stated or (CT_IMAGE if modality == "CT" else "")
    return sop_class, modality or ("CT" if sop_class in CT_CLASSES else "")
