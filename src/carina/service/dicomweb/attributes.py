"""Attributes of an object as DICOM JSON (PS3.18 F.2), read from its header and matched as QIDO-RS asks."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import msgspec
from pydicom.datadict import keyword_for_tag

from carina.dicom.part10 import OpenFile, open_file
from carina.dicom.values import tag_of, vr_of
from carina.errors import BadSeries
from carina.service.dicomweb.json_values import (
    DECIMAL_VRS,
    WHOLE_VRS,
    Attribute,
    Attributes,
    in_utf8,
    json_number,
    name_text,
    told_text,
)
from carina.service.dicomweb.reach import changed_ns, check_reached
from carina.service.dicomweb.sequences import sequence_records

_RANGES = frozenset({"DA", "TM", "DT"})


def hex_tag(keyword: str) -> str:
    """An attribute's tag as DICOM JSON writes it."""
    return f"{tag_of(keyword):08X}"


def known_keyword(name: str) -> str | None:
    """The keyword of an attribute that is named by its keyword or its tag; None where the standard has none."""
    try:
        is_tag = len(name) == 8 and int(name, 16) >= 0
    except ValueError:
        is_tag = False
    if is_tag:
        return keyword_for_tag(int(name, 16)) or None
    try:
        tag_of(name)
    except KeyError:
        return None
    return name


def attribute(keyword: str, *values: object) -> Attributes:
    """One attribute with values that are known already."""
    vr = vr_of(tag_of(keyword))
    return {hex_tag(keyword): {"vr": vr, "Value": list(values)} if values else {"vr": vr}}


@lru_cache(maxsize=20_000)
def _header(path: Path, keywords: tuple[str, ...], _modified: int) -> bytes:
    """What a header says, packed, which takes a tenth of the memory."""
    try:
        opened = open_file(path, keywords)
    except BadSeries as error:
        check_reached(error, path)
        opened = None
    vrs = {keyword: vr_of(tag_of(keyword)) for keyword in keywords}
    told = {hex_tag(one): told_text(vr, opened.text(one) if opened else "") for one, vr in vrs.items() if vr != "SQ"}
    sequences = [keyword for keyword, vr in vrs.items() if vr == "SQ"]
    return msgspec.msgpack.encode(in_utf8(told | _sequences(path, sequences, opened)))


def _sequences(path: Path, keywords: Sequence[str], opened: OpenFile | None) -> Attributes:
    """Sequences of a file, for which it is read once more, if its header has any of them or is damaged."""
    there = [one for one in keywords if opened is None or opened.raw(one) is not None]
    empty: Attributes = {hex_tag(keyword): {"vr": "SQ"} for keyword in keywords}
    return empty | (sequence_records(path, there) if there else {})


def header_record(path: Path, keywords: Sequence[str]) -> Attributes:
    """Attributes of a file; what it does not say, or is damaged, has no value, and nothing of one that is gone.

    Read once as long as the file is not changed.

    Raises:
        OutOfReach: it is there and can't be read.
    """
    found: Attributes = msgspec.msgpack.decode(_header(path, tuple(keywords), changed_ns(path)))
    return found


def matches(record: Attributes, wanted: Mapping[str, str]) -> bool:
    """Whether a record has what is wanted of it, by keyword (``SEQUENCE.KEYWORD`` of what is inside of one).

    An empty or ``*`` wish is fulfilled by everything, one within a sequence by any of its items (PS3.4 C.2.2.2.6).
    """
    return all(_has(record, key.split("."), wish) for key, wish in wanted.items())


def _has(record: Attributes, path: Sequence[str], wish: str) -> bool:
    if wish.strip() in ("", "*"):
        return True
    found = record.get(hex_tag(path[0]), {})
    if len(path) == 1:
        return _matches_one(found, wish)
    return any(_has(item, path[1:], wish) for item in found.get("Value", ()))


def _matches_one(found: Attribute, wish: str) -> bool:
    is_match = _MATCHERS.get(found.get("vr", ""), _like)
    return any(is_match(_as_text(value), wish) for value in found.get("Value", ()) if value is not None)


def _as_text(value: object) -> str:
    return name_text(value) if isinstance(value, dict) else str(value)


def _among(text: str, wish: str) -> bool:
    return text in wish.replace("\\", ",").split(",")


def _within(text: str, wish: str) -> bool:
    first, mark, last = wish.partition("-")
    if not mark:
        return _like(text, wish)
    return first <= text and (not last or text[: len(last)] <= last)


def _equal(text: str, wish: str) -> bool:
    number = json_number(wish, "DS")
    return number is not None and float(text) == number


def _like(text: str, wish: str) -> bool:
    """Wild cards of DICOM: ``*`` and ``?``; a bracket is a letter."""
    return fnmatch.fnmatchcase(text, wish.replace("[", "[[]"))


def _like_any(text: str, wish: str) -> bool:
    """One of a list (PS3.4 C.2.2.2.8), which QIDO-RS parts by commas; a code string has neither sign of its own."""
    return any(_like(text, one.strip()) for one in wish.replace("\\", ",").split(","))


def _like_name(text: str, wish: str) -> bool:
    """A name, whatever its case: by any of its component groups, or, where a wish parts them, each by its own.

    An empty group of a wish asks for nothing.
    """
    groups = text.casefold().split("=")
    asked = wish.casefold().split("=")
    if len(asked) == 1:
        return any(_like(group, asked[0]) for group in groups)
    return all(_like(group, one) for one, group in zip_longest(asked, groups, fillvalue="") if one)


_MATCHERS = {
    "UI": _among,
    "CS": _like_any,
    "PN": _like_name,
    **dict.fromkeys(_RANGES, _within),
    **dict.fromkeys(WHOLE_VRS | DECIMAL_VRS, _equal),
}
"""How a value and a wish are compared, by VR (PS3.4 C.2.2.2); others by wild cards."""
