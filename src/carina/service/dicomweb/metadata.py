"""The whole header of an object as DICOM JSON, with addresses in place of what is large (PS3.18 10.4.1.1.2)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
from pydicom import DataElement, Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

from carina.dicom.part10 import PIXEL_DATA
from carina.dicom.values import decoded
from carina.dicom.whole_file import read_whole
from carina.errors import BadSeries
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.json_values import CHARACTER_SET, Attribute, Attributes, in_utf8, told_text
from carina.service.dicomweb.qido import identity_record, instance_record
from carina.service.dicomweb.reach import check_reached
from carina.service.problems import NotThere

LARGE_BYTES = 1024
"""Binary values above this are fetched by their address."""

_DAMAGE = (
    ArithmeticError,
    AttributeError,
    BadSeries,
    EOFError,
    InvalidDicomError,
    KeyError,
    IndexError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises for a header that can't be followed."""


def metadata_of(held: Held, url: str) -> Attributes:
    """The attributes of an object; ``url`` is its own. A damaged one gives what a search tells of it.

    Raises:
        OutOfReach: its file is there and can't be read.
    """
    try:
        header = read_whole(held.path, stop_before_pixels=True)
        texts = _take_texts(header, ())
        large_values = _drop_large(header)
        record: Attributes = in_utf8(header.to_json_dict(suppress_invalid_tags=True) | texts)
    except _DAMAGE as error:
        check_reached(error, held.path)
        return instance_record(held)
    large = {f"{tag:08X}": {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag:08X}"} for tag, vr in large_values}
    if _is_picture(record):
        large[f"{PIXEL_DATA:08X}"] = {"vr": "OW", "BulkDataURI": f"{url}/frames"}
    return _ordered(identity_record(held) | record | large)


def as_dicom_json(record: Attributes) -> bytes:
    """A record as JSON: pydicom's own kinds of text and number are told as plain ones, what is no number as null."""
    return msgspec.json.encode(record, enc_hook=_plain)


def _plain(value: object) -> object:
    return next((kind(value) for kind in (int, float) if isinstance(value, kind)), str(value))


def _take_texts(data_set: Dataset, sets: Sequence[str]) -> Attributes:
    """Take the text of a data set out of it, and its sequences; gives both, decoded as a search decodes them.

    ``sets`` are the character sets of the data set around it.
    """
    written = {tag: data_set.get_item(tag) for tag in list(data_set.keys())}  # as bytes: what is looked at is decoded
    own = written.get(Tag(CHARACTER_SET))
    within = sets if own is None else _text(own, ()).split("\\")
    taken: Attributes = {}
    for tag, raw in written.items():
        element = data_set[tag]
        if element.VR == "SQ":
            taken[f"{tag:08X}"] = _sequence(element, within)
        elif element.VR in CUSTOMIZABLE_CHARSET_VR:
            taken[f"{tag:08X}"] = told_text(element.VR, _text(raw, within))
    for told in taken:
        del data_set[int(told, 16)]
    return taken


def _text(written: Any, sets: Sequence[str]) -> str:
    """The text of an element, which may be read already, without its padding."""
    value = written.value or ""
    if isinstance(value, bytes):
        value = decoded(value, sets)
    whole = value if isinstance(value, str) else "\\".join(map(str, value))
    return "\\".join(part.rstrip(" \0") for part in whole.split("\\"))


def _sequence(element: DataElement, sets: Sequence[str]) -> Attribute:
    """A sequence with its items; without a value where one of them can't be followed."""
    try:
        items = [_item(item, sets) for item in element.value]
    except _DAMAGE:
        items = []
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _item(item: Dataset, sets: Sequence[str]) -> Attributes:
    texts = _take_texts(item, sets)
    record: Attributes = item.to_json_dict(suppress_invalid_tags=True)
    return _ordered(in_utf8(record | texts))


def _ordered(record: Attributes) -> Attributes:
    return dict(sorted(record.items()))


def _drop_large(header: Dataset) -> list[tuple[int, str]]:
    """Take large binary values out of a data set; gives their tags and VRs."""
    found = [(int(one.tag), str(one.VR)) for one in header if _is_large(one)]
    for tag, _ in found:
        del header[tag]
    return found


def _is_large(element: DataElement) -> bool:
    value: Any = element.value
    return isinstance(value, bytes) and len(value) > LARGE_BYTES


def _is_picture(record: Attributes) -> bool:
    return {"00280010", "00280011"} <= set(record)


def bulk_data(held: Held, tag: str) -> bytes:
    """A binary value by its tag, as it is stored.

    Raises:
        NotThere: the object has none under this tag.
        OutOfReach: its file is there and can't be read.
    """
    try:
        header = read_whole(held.path, stop_before_pixels=True)
        value = header[int(tag, 16)].value
    except _DAMAGE as error:
        check_reached(error, held.path)
        words = f"the object has no value under the tag {tag[:20]!r}."
        if tag.upper() == f"{PIXEL_DATA:08X}":
            words = "pixels are no bulk data here: an image has them under /frames, as its metadata says."
        raise NotThere("dicomweb.bulk-data", words) from error
    if not isinstance(value, bytes):
        raise NotThere("dicomweb.bulk-data", f"the value under the tag {tag[:20]!r} is text; the metadata has it.")
    return value
