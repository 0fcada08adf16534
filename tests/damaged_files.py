"""Damaged DICOM files by seed: whole files in many encodings, with bytes, lengths, types and values changed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from carina.dicom.decode import open_pixels
from carina.dicom.headers import SliceHeader, slice_headers
from carina.dicom.objects_header import notes, patient_and_study
from carina.dicom.series import Instance, Series
from carina.dicom.uids import is_uid
from carina.dicom.whole_header import read_header
from carina.errors import BadSeries
from reading_codecs import CODECS, compressed
from reading_slices import EVEN, ct_slice, enhanced, rebuilt

Damage = Callable[[bytearray, random.Random], None]

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
SYNTAXES = (*NATIVE, RLELossless, *CODECS)

LENGTHS = (0, 1, 2, 3, 7, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
NUMBERS = (b"nan", b"-inf", b"1e39", b"-1", b"0", b"2147483648", b"1e999", b"1\\2", b"\\", b"1,5", b"", b"0x10", b"1_0")
TEXTS = (
    b"../../x",
    b"a\tb\nc",
    b"\x1b[31m",
    b"A\\B",
    b"\xff\xfe\xe9",
    b"\x1b$B\x21",
    b"x" * 300,
    b"\0\0",
    b"\xe6\x97\xa5",
)
TYPES = (b"SQ", b"UN", b"OB", b"US", b"FD", b"DS", b"UI", b"PN", b"ZZ", b"\0\0", b"UT", b"AT", b"OW", b"sq")


@cache
def whole_file(syntax: str, kind: str) -> bytes:
    """One intact file: a slice, or twelve frames, with everything in its header that anybody reads."""
    dataset = ct_slice((1.0, 2.0, 3.0), 1) if kind == "slice" else enhanced(EVEN)
    _fill(dataset)
    if syntax in CODECS or syntax == RLELossless:
        dataset = compressed(dataset, syntax)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = BytesIO()
    rebuilt(dataset).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _fill(dataset: Dataset) -> None:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "P5-08000", "SRT", "CT of chest"
    outer.PurposeOfReferenceCodeSequence = [inner, inner]
    outer.ReferencedSOPInstanceUID = "2.25.9"
    dataset.ReferencedImageSequence = [outer, outer]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "M\xfcller^Ann", "P-1", "19500102"
    dataset.PatientSex, dataset.PatientAge, dataset.PatientWeight = "F", "070Y", "71.5"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200304", "101112", "S1", "A1"
    dataset.StudyDescription, dataset.ReferringPhysicianName = "CT chest", "Roe^Richard"
    dataset.RescaleType, dataset.GantryDetectorTilt, dataset.KVP = "HU", 0, 120
    dataset.PixelPaddingValue, dataset.LossyImageCompression = 63536, "00"
    dataset.add_new(0x00091001, "LO", "a private creator")
    dataset.add_new(0x00091010, "UN", bytes(40))


def damaged(seed: int) -> bytes:
    """A file with one to six damages; the same seed gives the same bytes."""
    rng = random.Random(seed)
    content = bytearray(whole_file(rng.choice(SYNTAXES), rng.choice(("slice", "slice", "frames"))))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        rng.choice(DAMAGES)(content, rng)
    return bytes(content)


def _place(content: bytearray, rng: random.Random) -> int:
    """A place, in its header nine times of ten."""
    end = len(content) if rng.random() < 0.1 else min(len(content), 2200)
    return rng.randrange(max(end, 1))


def _flip(content: bytearray, rng: random.Random) -> None:
    for place in range(_place(content, rng), len(content), rng.choice((1, 7, 400, 10**6))):
        content[place] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            return


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[_place(content, rng) :]


def _leave_out(content: bytearray, rng: random.Random) -> None:
    place = _place(content, rng)
    del content[place : place + rng.choice((1, 2, 4, 8, 12, 200))]


def _insert(content: bytearray, rng: random.Random) -> None:
    place, size = _place(content, rng), rng.choice((1, 2, 8, 100, 5000))
    content[place:place] = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size, content[place : place + size]))


def _swap(content: bytearray, rng: random.Random) -> None:
    """Replace bytes that are a type, a tag or a length where the file has them, else anywhere."""
    place = _element(content, rng)
    match rng.randrange(5):
        case 0:
            content[place + 4 : place + 6] = rng.choice(TYPES)
        case 1:
            content[place + 6 : place + 8] = struct.pack("<H", rng.choice(LENGTHS) & 0xFFFF)
        case 2:
            content[place + 8 : place + 12] = struct.pack("<I", rng.choice(LENGTHS))
        case 3:
            content[place + 4 : place + 8] = struct.pack("<I", rng.choice(LENGTHS))
        case _:
            tag = rng.choice((0x00080005, 0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x52009230, 0x00280008))
            content[place : place + 4] = struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def _element(content: bytearray, rng: random.Random) -> int:
    """Where one of the groups of a header begins an element, as far as a search can tell."""
    group = struct.pack("<H", rng.choice((0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x5200, 0x7FE0)))
    found = content.find(group, _place(content, rng))
    return found if found >= 0 else _place(content, rng)


def _value(content: bytearray, rng: random.Random) -> None:
    """Put another value, of its own length, into an element of explicit type."""
    place = _element(content, rng)
    new = rng.choice((*NUMBERS, *TEXTS, rng.randbytes(rng.choice((1, 2, 3, 4, 8, 9)))))
    if len(content) < place + 8:
        return
    (old,) = struct.unpack_from("<H", content, place + 6)
    content[place + 6 : place + 8 + old] = struct.pack("<H", len(new)) + new


def _nest(content: bytearray, rng: random.Random) -> None:
    """Sequences in sequences in place of an element, closed or not."""
    place, depth = _element(content, rng), rng.choice((3, 50, 3000))
    undefined = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    closing = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    content[place:place] = undefined * depth + closing * rng.choice((0, depth - 1, depth, depth + 2))


def _many(content: bytearray, rng: random.Random) -> None:
    """Thousands of empty items, elements or delimiters."""
    place = _element(content, rng)
    tag = rng.choice((0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00081140, 0x52009230, 0x00280008, 0x00080005))
    content[place:place] = struct.pack("<HHI", tag >> 16, tag & 0xFFFF, rng.choice((0, 0, 0xFFFFFFFF))) * rng.choice(
        (2, 3000)
    )


def _claim(content: bytearray, rng: random.Random) -> None:
    """More frames, rows or bits than there are, where a slice has its own."""
    keyword, form = rng.choice(
        ((0x00280008, "IS"), (0x00280010, "US"), (0x00280011, "US"), (0x00280100, "US"), (0x00280102, "US"))
    )
    place = content.find(struct.pack("<HH", keyword >> 16, keyword & 0xFFFF))
    value = rng.choice((b"2147483647", b"-5 ", b"0 ", b"65537 ", b"NaN ")) if form == "IS" else rng.randbytes(2)
    new = struct.pack("<HH2sH", keyword >> 16, keyword & 0xFFFF, form.encode(), len(value)) + value
    at = place if place >= 0 else _element(content, rng)
    content[at : at + (0 if form == "IS" else len(new))] = new


def _splice(content: bytearray, rng: random.Random) -> None:
    other = whole_file(rng.choice(SYNTAXES), rng.choice(("slice", "frames")))
    place = _place(content, rng)
    content[place:] = other[rng.choice((place, _place(bytearray(other), rng))) :]


def _headless(content: bytearray, rng: random.Random) -> None:
    del content[: rng.choice((128, 132, 132 + 12, 340))]


DAMAGES: tuple[Damage, ...] = (_flip, _flip, _cut, _leave_out, _insert, _swap, _swap, _swap, _value, _value, _value)
DAMAGES += (_nest, _many, _claim, _claim, _splice, _headless)


def read_all(path: Path) -> str:
    """Read a file as a listing, a reader of voxels and a writer of objects do: ``read``, ``nothing`` or a code.

    Raises:
        AssertionError: something came out that nobody can use.
    """
    try:
        headers = slice_headers(path)
    except BadSeries as error:
        assert path.name in error.message and "\n" not in error.message
        return error.code
    for header in headers[:20]:
        _check(header)
    outcomes = {_decoded(path, header) for header in headers[:3]}
    if headers:
        _check_copies(path, headers[0])
    return "nothing" if not headers else " ".join(sorted(outcomes))


def _check(header: SliceHeader) -> None:
    texts = (header.modality, header.description, header.kernel, header.body_part, *header.apart, *header.notes)
    assert all(text.isprintable() for text in (*texts, *header.image_type, *header.faults.values()))
    uids = (header.sop_instance_uid, header.study_uid, header.series_uid, header.frame_of_reference_uid)
    assert all(not uid or is_uid(uid) for uid in uids)
    numbers = (
        *(header.position_mm or ()),
        *(header.orientation or ()),
        *(header.pixel_spacing_mm or ()),
        header.tilt_deg,
    )
    assert np.isfinite(numbers).all()
    assert header.slope is None or 0 < header.slope < np.inf
    assert header.intercept is None or np.isfinite(header.intercept)


def _decoded(path: Path, header: SliceHeader) -> str:
    try:
        pixels = open_pixels(path)
        hu = np.full((pixels.layout.rows, pixels.layout.columns), 12345, np.int16)
        pixels.hu(header.frame, hu)
    except BadSeries as error:
        assert path.name in error.message and "\n" not in error.message
        return error.code
    assert hu.min() >= -1024 and not (hu == 12345).all()
    return "read"


def _check_copies(path: Path, header: SliceHeader) -> None:
    """What a writer of objects takes from the header is valid, whatever is there."""
    instance = Instance(path=path, sop_instance_uid="2.25.1", sop_class_uid="2.25.2", position_mm=(0, 0, 0))
    try:
        source = read_header(path)
    except BadSeries:
        return
    series = Series(
        uid=header.series_uid,
        study_uid=header.study_uid,
        frame_of_reference_uid=header.frame_of_reference_uid,
        header=source,
        instances=(instance,),
        rows=header.rows,
        columns=header.columns,
        pixel_spacing_mm=(1, 1),
        slice_axes=((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    )
    copied, buffer = patient_and_study(series), BytesIO()
    copied.save_as(buffer, implicit_vr=False, little_endian=True)
    again = dcmread(BytesIO(buffer.getvalue()), force=True)
    assert all(
        str(element.value).isprintable() and "\N{REPLACEMENT CHARACTER}" not in str(element.value) for element in again
    )
    assert all(note.isprintable() for note in notes(series))
