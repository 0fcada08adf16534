"""How sharp a reconstruction kernel is, by a table of the makers' names for theirs."""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files

import msgspec

from carina.dicom.words import folded, readings

KERNEL_TABLE = "kernels.toml"

IN_TEXT = re.compile(r"\b(fc ?\d\d|[bdhiq][rlvfcmu]?[1-8]\d[fsmhd]?)\b")
"""A kernel's name within a description: only names that nothing else has."""


class Sharpness(StrEnum):
    """Classes of kernels; ``unknown`` is what the table does not know."""

    SOFT = "soft"
    MEDIUM = "medium"
    SHARP = "sharp"
    EDGE = "edge"
    UNKNOWN = "unknown"


class _Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    maker: str
    pattern: str
    sharpness: Sharpness = Sharpness.UNKNOWN
    up_to: tuple[tuple[int, Sharpness], ...] = ()


@cache
def _families() -> tuple[tuple[re.Pattern[str], _Family], ...]:
    text = (files("carina.dicom") / KERNEL_TABLE).read_text(encoding="utf-8")
    table = msgspec.convert(tomllib.loads(text)["family"], list[_Family])
    return tuple((re.compile(family.pattern), family) for family in table)


def sharpness(kernel: str, description: str = "") -> Sharpness:
    """The class of a Convolution Kernel; where that is empty or unknown, what the Series Description lets guess."""
    found = _by_name(kernel)
    return _by_text(description) if found is Sharpness.UNKNOWN else found


@lru_cache(maxsize=1024)
def _by_name(kernel: str) -> Sharpness:
    """By the attribute's first value; Siemens' second is the strength of the iteration."""
    name = re.sub(r"[\s_-]+", " ", folded(kernel.split("\\")[0])).strip().lower()
    if not name:
        return Sharpness.UNKNOWN
    for pattern, family in _families():
        match = pattern.search(name)
        if match:
            return _class(family, int(match["number"])) if family.up_to else family.sharpness
    return Sharpness.UNKNOWN


def _class(family: _Family, number: int) -> Sharpness:
    return next((kind for highest, kind in family.up_to if number <= highest), Sharpness.UNKNOWN)


@lru_cache(maxsize=1024)
def _by_text(description: str) -> Sharpness:
    """By a kernel's name, or a word for one, in a description."""
    ways = readings(description)
    named = next((match[0] for way in ways if (match := IN_TEXT.search(way))), "")
    words = [family for family in _families() if family[1].maker == "any"]
    told = (family.sharpness for pattern, family in words if any(pattern.search(way) for way in ways))
    return _by_name(named) if named else next(told, Sharpness.UNKNOWN)
