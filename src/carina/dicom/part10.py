"""One DICOM file (PS3.10): its header's values, and where its pixel data lies; the one place where both are read.

Whatever bytes a file holds, reading it ends with an ``OpenFile``, with None, or with ``BadSeries``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from carina.dicom.elements import LONG_VRS, SHORT_VRS, Element, ElementReader, Encoding, tag_text
from carina.dicom.ends import check_ends
from carina.dicom.fragments import Encapsulated, find_fragments
from carina.dicom.sound import SoundElements
from carina.dicom.sources import Bytes, Inflated, Plain
from carina.dicom.syntaxes import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, NATIVE
from carina.dicom.values import LONGEST_VALUE, Raw, number_of, numbers_of, tag_of, text_of, vr_of
from carina.errors import BadSeries

PREAMBLE = 128
META_CLASS, TRANSFER_SYNTAX, CHARACTER_SETS, PIXEL_DATA = 0x00020002, 0x00020010, 0x00080005, 0x7FE00010
SHARED, PER_FRAME = 0x52009229, 0x52009230
META_ENCODING = Encoding(is_implicit=False, order="<")

INFLATED_PIXELS = 64 * 1024 * 1024
"""Bytes of a deflated file's pixel data that are inflated to see whether it is all there."""

DEFLATE_RATIO = 1032
"""Deflate makes nothing smaller than by this (its longest match of 258 bytes takes two bits)."""

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

Values = Mapping[int, Raw]


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    """What a DICOM file's header says, as far as it was asked for, and where its pixel data lies.

    ``has_preamble`` is whether the file is marked as DICOM, ``sop_class`` what its meta information says. ``values``
    are those of the data set, ``shared`` and ``frames`` those of its functional groups, by tag. ``pixel_offset`` is
    where the Pixel Data element's value begins (None: there is none), in the file or, of a deflated one, in what it
    inflates to; ``pixel_bytes`` is how many of its bytes are there, None where its length is undefined.
    ``encapsulated`` says where compressed frames lie; ``inflated`` are the first bytes of a deflated file's pixel data.
    ``data_offset`` is where the data set begins in the file, as it was written: after the file meta information.
    ``is_implicit`` is how its elements are written, whatever the transfer syntax says of them.
    """

    path: Path
    data_offset: int
    is_implicit: bool
    has_preamble: bool
    transfer_syntax: str
    sop_class: str
    values: Values
    shared: Values = field(default_factory=dict)
    frames: Sequence[Values] = ()
    character_sets: tuple[str, ...] = ()
    pixel_offset: int | None = None
    pixel_bytes: int | None = None
    encapsulated: Encapsulated | None = None
    inflated: bytes = b""

    @property
    def has_pixels(self) -> bool:
        """Whether there is a Pixel Data element."""
        return self.pixel_offset is not None

    def raw(self, keyword: str, frame: int | None = None) -> Raw | None:
        """An attribute's value; of a multi-frame object from its per-frame or shared functional group, where it is."""
        tag = tag_of(keyword)
        if frame is not None and keyword in GROUPS:
            own = self.frames[frame - 1] if 0 < frame <= len(self.frames) else {}
            found = own.get(tag) or self.shared.get(tag)
            if found is not None:
                return found
        return self.values.get(tag)

    def number(self, keyword: str, frame: int | None = None) -> float | None:
        """An attribute's only number; None where it is absent, empty, or no finite number."""
        return number_of(self.raw(keyword, frame))

    def numbers(self, keyword: str, count: int, frame: int | None = None) -> tuple[float, ...] | None:
        """An attribute's numbers if they are finite and as many as ``count``, else None."""
        return numbers_of(self.raw(keyword, frame), count)

    def text(self, keyword: str, frame: int | None = None) -> str:
        """An attribute as one line of text, several values joined by a backslash; empty where it is absent."""
        return text_of(self.raw(keyword, frame), self.character_sets)


def open_file(path: Path, keywords: Sequence[str], *, to_its_end: bool = False) -> OpenFile | None:
    """Read the named attributes of a file, up to its pixel data; None where it is no DICOM file.

    With ``to_its_end``, see also that the file does not end before its elements do.

    Raises:
        BadSeries: the file is DICOM but can't be followed so far, or can't be opened.
    """
    with reading(path) as stream:
        data_set = find_data_set(path.name, stream)
        return None if data_set is None else _read(path, data_set, _wanted(tuple(keywords)), to_its_end=to_its_end)


def inflated_pixels(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of a deflated file's pixel data; fewer where there are not so many.

    Raises:
        BadSeries: the file can't be followed to its pixel data, or can't be opened.
    """
    with reading(path) as stream:
        data_set = find_data_set(path.name, stream)
        elements = data_set.elements() if data_set else ()
        start = next((one.start for one in elements if one.tag == PIXEL_DATA), None)
        return b"" if start is None or data_set is None else data_set.source.take(start, size)


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file that is read, with what the operating system says of it as ``BadSeries``."""
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise BadSeries("series.unreadable", f"{path.name}: can't be read ({error.strerror or error}).") from error
    except MemoryError as error:
        raise BadSeries("series.memory", f"{path.name}: reading it takes more memory than there is.") from error


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The data set of one file, not yet read: its bytes, where they begin, how elements are found in them.

    ``start`` counts in the bytes of ``source``, ``file_offset`` in the file's.
    """

    source: Plain | Inflated
    start: int
    file_offset: int
    encoding: Encoding
    has_preamble: bool
    transfer_syntax: str
    sop_class: str
    file_bytes: int

    def elements(self) -> Iterator[Element]:
        """The elements up to and with Pixel Data, whose end is not looked for."""
        return ElementReader(self.source, self.encoding).elements(self.start, until=PIXEL_DATA)

    def value(self, element: Element, longest: int) -> Raw:
        """An element's value, up to ``longest`` of its bytes; its VR as written, else the dictionary's."""
        data = b"" if element.size is None else self.source.read(element.start, min(element.size, longest))
        vr = element.vr if element.vr not in ("", "UN") else vr_of(element.tag)
        return Raw(vr, data, self.encoding.order)


def find_data_set(name: str, stream: BinaryIO) -> DataSet | None:
    """Where a file's data set begins and how it is written; None where it is no DICOM file.

    Raises:
        BadSeries: its file meta information can't be followed.
    """
    plain = Plain(name, stream)
    head = plain.read(0, PREAMBLE + 4)
    has_preamble = head[PREAMBLE:] == b"DICM"
    if not has_preamble and not _begins_like_dicom(head):
        return None
    meta, start = _meta(plain, PREAMBLE + 4 if has_preamble else 0)
    stated = text_of(meta.get(TRANSFER_SYNTAX))
    is_deflated = stated == DEFLATED
    source = Inflated(name, stream, start) if is_deflated else plain
    file_offset, start = start, 0 if is_deflated else start
    encoding = _encoding(source.read(start, 8), stated)
    guessed = BIG_ENDIAN if encoding.order == ">" else IMPLICIT if encoding.is_implicit else EXPLICIT
    return DataSet(
        source=source,
        start=start,
        file_offset=file_offset,
        encoding=encoding,
        has_preamble=has_preamble,
        transfer_syntax=stated or guessed,
        sop_class=text_of(meta.get(META_CLASS)),
        file_bytes=plain.size,
    )


def _begins_like_dicom(head: bytes) -> bool:
    """Whether a file without preamble begins with a plausible element of group 2 or 8 (PS3.10 7.1)."""
    if len(head) < 16:
        return False
    for order in ("<", ">"):
        group, element = struct.unpack_from(order + "HH", head)
        if group in (0x0002, 0x0008) and element <= 0x1199:
            (length,) = struct.unpack_from(order + "I", head, 4)
            return _has_vr(head) or length <= 1024
    return False


def _has_vr(head: bytes) -> bool:
    return head[4:6] in SHORT_VRS or head[4:6] in LONG_VRS


def _meta(source: Bytes, at: int) -> tuple[dict[int, Raw], int]:
    """The file meta information's values (group 2, PS3.10 7.1), and where the data set begins.

    Its own statement of its length is not needed, and is wrong in many files.
    """
    reader = ElementReader(source, META_ENCODING)
    sound = SoundElements(reader)
    found: dict[int, Raw] = {}
    while (element := reader.head(at)) is not None and element.tag >> 16 == 0x0002:
        if element.size is None or not source.reaches(element.end):
            raise source.broken(f"{tag_text(element.tag)} is longer than the file")
        sound.once(element)
        found[element.tag] = Raw("UI", source.read(element.start, min(element.size, LONGEST_VALUE)))
        at = element.end
    return found, at


def _encoding(head: bytes, syntax: str) -> Encoding:
    """How a data set is written, by the first bytes of it: files that say one thing and do another are common."""
    if len(head) < 8:
        return META_ENCODING
    is_big = syntax == BIG_ENDIAN
    if not syntax:
        is_big = struct.unpack_from("<H", head)[0] > 0xFF and struct.unpack_from(">H", head)[0] <= 0xFF
    return Encoding(is_implicit=not _has_vr(head), order=">" if is_big else "<")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """Tags to read: of the data set itself, and by the tag of the sequence that holds them in functional groups."""

    tags: frozenset[int]
    groups: Mapping[int, frozenset[int]]


@lru_cache(maxsize=16)
def _wanted(keywords: tuple[str, ...]) -> _Wanted:
    groups: dict[int, set[int]] = {}
    for keyword in GROUPS.keys() & set(keywords):
        sequence = GROUPS[keyword]
        groups.setdefault(tag_of(sequence), set()).add(tag_of(keyword))
    return _Wanted(
        tags=frozenset([CHARACTER_SETS, *map(tag_of, keywords)]),
        groups={sequence: frozenset(tags) for sequence, tags in groups.items()},
    )


def _read(path: Path, data_set: DataSet, wanted: _Wanted, *, to_its_end: bool) -> OpenFile:
    reader = ElementReader(data_set.source, data_set.encoding)
    sound = SoundElements(ElementReader(data_set.source, data_set.encoding))
    at = data_set.start
    values: dict[int, Raw] = {}
    groups: dict[int, list[Values]] = {}
    pixels: Element | None = None
    for element in sound.of(reader.elements(data_set.start, until=PIXEL_DATA)):
        at = element.end
        if element.tag == PIXEL_DATA:
            pixels = element
        elif element.tag in (SHARED, PER_FRAME):
            items = reader.items(element)
            groups[element.tag] = [_group_values(data_set, reader, item, wanted) for item in items]
        elif element.tag in wanted.tags:
            values[element.tag] = data_set.value(element, LONGEST_VALUE)
    sets = text_of(values.get(CHARACTER_SETS))
    header = OpenFile(
        path=path,
        data_offset=data_set.file_offset,
        is_implicit=data_set.encoding.is_implicit,
        has_preamble=data_set.has_preamble,
        transfer_syntax=data_set.transfer_syntax,
        sop_class=data_set.sop_class,
        values=values,
        shared=next(iter(groups.get(SHARED, ())), {}),
        frames=groups.get(PER_FRAME, ()),
        character_sets=tuple(sets.split("\\")) if sets else (),
    )
    if pixels is not None:
        header = _with_pixels(header, data_set, pixels)
    if to_its_end:
        check_ends(reader, at, pixels, header.encapsulated, sound)
    return header


def _with_pixels(header: OpenFile, data_set: DataSet, pixels: Element) -> OpenFile:
    inflated = _inflated(data_set, pixels)
    is_native = data_set.transfer_syntax in NATIVE
    return replace(
        header,
        pixel_offset=pixels.start,
        pixel_bytes=_there(data_set, pixels, len(inflated)),
        encapsulated=None if is_native else find_fragments(data_set.source, pixels.start, data_set.file_bytes),
        inflated=inflated,
    )


def _group_values(data_set: DataSet, reader: ElementReader, item: tuple[int, int], wanted: _Wanted) -> dict[int, Raw]:
    """The wanted values of one item of functional groups, each from the first item of its own sequence."""
    found: dict[int, Raw] = {}
    for group in reader.elements(*item):
        tags = wanted.groups.get(group.tag)
        for first in islice(reader.items(group), 1) if tags else ():
            inner = (one for one in reader.elements(*first) if tags and one.tag in tags)
            found |= {one.tag: data_set.value(one, LONGEST_VALUE) for one in inner}
    return found


def _inflated(data_set: DataSet, pixels: Element) -> bytes:
    if pixels.size is None or data_set.transfer_syntax != DEFLATED:
        return b""
    return data_set.source.take(pixels.start, min(pixels.size, INFLATED_PIXELS))


def _there(data_set: DataSet, pixels: Element, inflated: int) -> int | None:
    """How many bytes of the pixel data are there; of very many in a deflated file, how many there can be."""
    if pixels.size is None:
        return None
    if isinstance(data_set.source, Plain):
        return data_set.source.count(pixels.start, pixels.size)
    return inflated if inflated < INFLATED_PIXELS else min(pixels.size, DEFLATE_RATIO * data_set.file_bytes)
