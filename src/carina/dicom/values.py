"""Encoded values to numbers and text (PS3.5 6): what can't be one is said so, and never raises.

Text that does not fit the character sets its object declares keeps U+FFFD in place of the bytes that don't; what is
copied into other objects is checked for it (``objects_header``).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR, tag_for_keyword

LONGEST_VALUE = 4096
"""Bytes of one value that are looked at: none of those that reading depends on has more."""

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}

NUMBER_TEXT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A decimal or integer string (PS3.5 6.2), which is less than Python takes for a number."""

LARGEST_NUMBER = 2.0**53
"""No number in a header is larger; up to here every whole number is exact."""

DEFAULT_SETS = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
"""Terms for the default repertoire, which is ASCII (PS3.3 C.12.1.1.2)."""

MISSPELT = re.compile(r"ISO[ _-]IR[ _-]?(\d+)")
"""A term of a single set; the standard writes ``ISO_IR 100``."""

KEEPING_ESCAPES = frozenset({"iso2022_jp", "iso2022_jp_2"})
"""Codecs of Python's that read the escape sequences themselves."""

ESCAPED = re.compile(rb"\x1b(?:\$[()][A-D]|\$B|[()\-][A-Z])")
RESETTING = re.compile(rb"[\r\n\t\f^=\\]")
"""Delimiters before which the first character set becomes active again (PS3.5 6.1.2.5.3)."""

CHARACTERS_SHOWN = 40
"""Characters of a value that a message shows."""


class Raw(NamedTuple):
    """One value as its file has it: the VR (as written, else the dictionary's), its bytes, and their order."""

    vr: str
    data: bytes
    order: str = "<"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there, or only padding; zero bytes of a binary number are a number."""
        return not (self.data if self.vr in BINARY else self.data.strip(b" \0"))


def number_of(raw: Raw | None) -> float | None:
    """The only number of a value; None where there is none, or several, or what is there is no finite number."""
    found = numbers_of(raw, 1)
    return found[0] if found else None


def numbers_of(raw: Raw | None, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` finite numbers, or None."""
    found = _numbers(raw) if raw is not None else ()
    if len(found) != count or not all(math.isfinite(v) and abs(v) <= LARGEST_NUMBER for v in found):
        return None
    return found


def _numbers(raw: Raw) -> tuple[float, ...]:
    kind = BINARY.get(raw.vr)
    if kind is None:
        parts = [part.strip(" \0") for part in raw.data.decode("ascii", "replace").split("\\")]
        return tuple(float(part) if NUMBER_TEXT.fullmatch(part) else math.nan for part in parts)
    count, rest = divmod(len(raw.data), struct.calcsize(kind))
    return () if rest else tuple(float(v) for v in struct.unpack(f"{raw.order}{count}{kind}", raw.data))


def text_of(raw: Raw | None, sets: Sequence[str] = ()) -> str:
    """A value as one line of text, several joined by a backslash as DICOM does; empty where there is none.

    ``sets`` are the terms of Specific Character Set. What does not print becomes a space.
    """
    if raw is None:
        return ""
    if raw.vr in BINARY:
        return "\\".join(f"{v:.17g}" for v in _numbers(raw))
    return "\\".join(_printing(part) for part in decoded(raw.data, sets).split("\\"))


def _printing(text: str) -> str:
    return text.strip(" \0") if text.isprintable() else "".join(c if c.isprintable() else " " for c in text).strip()


def decoded(data: bytes, sets: Sequence[str]) -> str:
    """Bytes as text by the terms of Specific Character Set; U+FFFD stands for what fits none of them."""
    if data.isascii() and b"\x1b" not in data:
        return data.decode("ascii")
    encodings = [_encoding(term) for term in sets] or ["ascii"]
    at = _escape(data, 0)
    text = data[:at].decode(encodings[0], "replace")
    while at < len(data):
        end = _escape(data, at + 1)
        text += _after_escape(data[at:end], encodings)
        at = end
    return text


def _escape(data: bytes, at: int) -> int:
    found = data.find(b"\x1b", at)
    return found if found >= 0 else len(data)


def _after_escape(data: bytes, encodings: Sequence[str]) -> str:
    """The text of a part that begins with an escape sequence, which must be one of a declared set."""
    sequence = ESCAPED.match(data)
    encoding = CODES_TO_ENCODINGS.get(sequence.group(), "") if sequence else ""
    if sequence is None or (encoding not in encodings and sequence.group() != b"\x1b(B"):
        return data.decode(encodings[0], "replace")
    if encoding in KEEPING_ESCAPES:
        return data.decode(encoding, "replace")
    body = data[sequence.end() :]
    reset = RESETTING.search(body)
    cut = reset.start() if reset else len(body)
    active = "ascii" if sequence.group() == b"\x1b(B" else encoding
    return body[:cut].decode(active, "replace") + body[cut:].decode(encodings[0], "replace")


@lru_cache(maxsize=64)
def _encoding(term: str) -> str:
    """Python's codec for a term, spelt as it often is; ASCII for the default and for what the standard doesn't know."""
    term = MISSPELT.sub(r"ISO_IR \1", term.strip().upper())
    return "ascii" if term in DEFAULT_SETS else python_encoding.get(term, "ascii")


def shown(raw: Raw | None) -> str:
    """A value as a message quotes it."""
    if raw is None:
        return "missing"
    if not raw.data:
        return "empty"
    text = text_of(raw)
    if raw.vr in BINARY:
        return text or f"{len(raw.data)} bytes that are no {raw.vr}"
    return f"'{text[:CHARACTERS_SHOWN]}'" + (" ..." if len(text) > CHARACTERS_SHOWN else "")


@lru_cache(maxsize=512)
def named(keyword: str) -> str:
    """An attribute as messages name it: ``Rescale Slope (0028,1053)``."""
    tag = tag_of(keyword)
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> int:
    """The tag of an attribute of the standard.

    Raises:
        KeyError: the standard has no such attribute.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


@lru_cache(maxsize=512)
def vr_of(tag: int) -> str:
    """The VR of an attribute by the dictionary, the first where it leaves a choice; ``UN`` of one it doesn't know."""
    return dictionary_VR(tag).split(" ")[0] if dictionary_has_tag(tag) else "UN"
