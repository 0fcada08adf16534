"""Texts that people type into headers, as words: accents folded, split at underscores, case and digits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

LETTERS = {"ß": "ss", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "đ": "d"}
"""Latin letters that are no letter with an accent to Unicode."""

SEPARATORS = re.compile(r"[\W_]+")
EDGES = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)"
    r"|(?<=[a-zA-Z])(?=[^\x00-\x7f])|(?<=[^\x00-\x7f])(?=[a-zA-Z])"
)
"""Where a word ends without a separator: ``ThorAbd``, ``CTThorax``, ``MIP10``, ``胸部CT``."""


def folded(text: str) -> str:
    """The text with full-width letters made narrow and accents taken off Latin letters; case is kept."""
    return "".join(_folded_letter(letter) for letter in unicodedata.normalize("NFKC", text))


def _folded_letter(letter: str) -> str:
    if letter < "\x80":
        return letter
    plain = LETTERS.get(letter) or unicodedata.normalize("NFD", letter)[0]
    return plain if plain < "\x80" else letter


@lru_cache(maxsize=4096)
def readings(text: str) -> tuple[str, ...]:
    """The ways to read a text, lower case: as it stands, folded, its parts parted by spaces, those split further."""
    whole = folded(text)
    parts = SEPARATORS.sub(" ", whole).strip()
    return tuple(dict.fromkeys(one.lower() for one in (text, whole, parts, EDGES.sub(" ", parts))))


def first_match(patterns: Sequence[str], text: str, *, but: Sequence[str] = ()) -> str:
    """What a text holds of the first pattern (a regular expression) that fits one of its readings; empty for none.

    What fits a pattern of ``but`` is taken out of each reading first.
    """
    ways = [_without(but, way) for way in readings(text)]
    for pattern in patterns:
        for way in ways:
            match = re.search(pattern, way, re.IGNORECASE)
            if match:
                return match[0].strip() or way
    return ""


def _without(patterns: Sequence[str], text: str) -> str:
    for pattern in patterns:
        text = re.sub(pattern, " ", text, flags=re.IGNORECASE)
    return text
