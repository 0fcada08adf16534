"""Values of an object's header as DICOM JSON tells them (PS3.18 F.2.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Attribute = dict[str, Any]
Attributes = dict[str, Attribute]
"""Attributes by their tag in eight hexadecimal digits."""

WHOLE_VRS = frozenset({"IS", "US", "SS", "UL", "SL", "UV", "SV"})
DECIMAL_VRS = frozenset({"DS", "FL", "FD"})
_LONG_TEXTS = frozenset({"ST", "LT", "UT", "UR"})
"""Of these a backslash is a letter, and parts no values."""

UNTOLD_VRS = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN", "AT"})
"""What is not told by a search: binary values, and tags."""

_NAME_PARTS = ("Alphabetic", "Ideographic", "Phonetic")
"""The component groups of a person's name, in their order (PS3.5 6.2.1.2)."""

CHARACTER_SET = "00080005"


def told_text(vr: str, text: str) -> Attribute:
    """An attribute by the text of its values, which backslashes part."""
    if vr in UNTOLD_VRS:
        return {"vr": vr}
    parts = [text] if vr in _LONG_TEXTS else text.split("\\")
    values = [_value(part, vr) for part in parts]
    return {"vr": vr, "Value": values} if any(value is not None for value in values) else {"vr": vr}


def _value(text: str, vr: str) -> object:
    if not text:
        return None
    if vr in WHOLE_VRS | DECIMAL_VRS:
        return json_number(text, vr)
    if vr == "PN":
        groups = {part: group for part, group in zip(_NAME_PARTS, text.split("="), strict=False) if group.strip()}
        return groups or None
    return text


def name_text(name: Mapping[str, str]) -> str:
    """A person's name as a header writes it: each component group in its place, up to the last that is not empty."""
    return "=".join(name.get(part, "") for part in _NAME_PARTS).rstrip("=")


def in_utf8(record: Attributes) -> Attributes:
    """A record that says of its text that it is UTF-8, whatever the header was written in (PS3.18 F.2)."""
    if "Value" not in record.get(CHARACTER_SET, {}):
        return record
    return record | {CHARACTER_SET: {"vr": "CS", "Value": ["ISO_IR 192"]}}


def json_number(text: str, vr: str) -> float | int | None:
    """A number of a VR; None where it is none, or is not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if vr in WHOLE_VRS else number
