"""A file's header as pydicom's ``Dataset``, for whoever wants any attribute of the source (``Series.header``)."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.tag import Tag

from carina.dicom.elements import Element
from carina.dicom.part10 import CHARACTER_SETS, PIXEL_DATA, DataSet, find_data_set, reading
from carina.dicom.values import Raw, decoded, text_of
from carina.errors import BadSeries

CHARACTER_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""VRs of text that is written in the character sets an object declares (PS3.5 6.1.2.3)."""

LARGEST_VALUE = 1 << 24
MOST_TAGS = 20_000
"""Values longer, and tags beyond these, are left out: private attachments, or damage."""


def read_header(path: Path) -> Dataset:
    """The attributes of a file before its pixel data.

    Nothing is converted before it is asked for, so that no damage is met but where it is: then pydicom raises. Text is
    decoded already; bytes that fit no declared character set are U+FFFD in it.

    Raises:
        BadSeries: the file is no DICOM file, or can't be followed to its pixel data.
    """
    dataset = Dataset()
    with reading(path) as stream:
        data_set = find_data_set(path.name, stream)
        if data_set is None:
            raise BadSeries(
                "series.unreadable", f"{path.name}: it was DICOM when the folder was listed, and is not now."
            )
        encoding = data_set.encoding
        sets: tuple[str, ...] = ()
        for count, element in enumerate(data_set.elements()):
            if element.tag == PIXEL_DATA or count >= MOST_TAGS:
                break
            if _is_left_out(element):
                continue
            raw = _content(data_set, element)
            if element.tag == CHARACTER_SETS:
                sets = tuple(text_of(raw).split("\\"))
            dataset[Tag(element.tag)] = _element(element, raw, sets, data_set)
        dataset.set_original_encoding(encoding.is_implicit, encoding.order == "<")
    return dataset


def _is_left_out(element: Element) -> bool:
    """Group lengths, file meta information in the wrong place, and what is too large to be an attribute."""
    return not element.tag & 0xFFFF or element.tag >> 16 <= 2 or element.end - element.start > LARGEST_VALUE


def _content(data_set: DataSet, element: Element) -> Raw:
    raw = data_set.value(element, LARGEST_VALUE)
    return (
        raw
        if element.size is not None
        else raw._replace(vr="SQ", data=data_set.source.read(element.start, element.end - element.start))
    )


def _element(element: Element, raw: Raw, sets: tuple[str, ...], data_set: DataSet) -> DataElement | RawDataElement:
    if raw.vr in CHARACTER_VRS:
        values = [part.strip(" \0") for part in decoded(raw.data, sets).split("\\")]
        value = values[0] if len(values) == 1 else values
        return DataElement(Tag(element.tag), raw.vr, value, validation_mode=0)
    encoding = data_set.encoding
    return RawDataElement(
        Tag(element.tag), raw.vr, len(raw.data), raw.data, element.start, encoding.is_implicit, encoding.order == "<"
    )
