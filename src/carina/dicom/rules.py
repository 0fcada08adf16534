"""Which series is taken: rules from a file, what each series fails, and which of those that fit is best."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Literal

import msgspec

from carina.dicom.assemble import text_of
from carina.dicom.found import Found
from carina.dicom.headers import Problem
from carina.dicom.series import VolumeFile
from carina.errors import BadConfig

DEFAULT_RULES = "default-series-rules.toml"

Plane = Literal["axial", "coronal", "sagittal", "any"]
Criterion = Literal["original", "region", "coverage", "spacing", "kernel", "description", "slices"]


class Prefer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What makes one series better than another; ``order`` puts the most important first. Lengths in mm."""

    order: tuple[Criterion, ...] = ("original", "region", "coverage", "spacing", "kernel", "description", "slices")
    coverage_mm: float = 150.0
    slice_spacing_mm: tuple[float, float] = (0.5, 3.0)
    kernel: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    region_exclude: str = ""


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a series must be to be taken; patterns are regular expressions in which case does not matter."""

    modality: tuple[str, ...] = ("CT",)
    plane: Plane = "axial"
    max_degrees_from_plane: float = 35.0
    min_slices: int = 10
    min_slice_spacing_mm: float = 0.2
    max_slice_spacing_mm: float = 10.0
    max_pixel_spacing_mm: float = 2.0
    min_matrix: int = 64
    kernel_include: tuple[str, ...] = ()
    kernel_exclude: tuple[str, ...] = ()
    description_include: tuple[str, ...] = ()
    description_exclude: tuple[str, ...] = ()
    image_type_exclude: tuple[str, ...] = ()
    prefer: Prefer = Prefer()


def load_rules(file: Path | str | None = None) -> Rules:
    """Read rules from a TOML file over those that ship with Carina, which hold for every key it leaves out.

    Raises:
        BadConfig: the file can't be read, or holds an unknown key, a wrong value or a broken pattern.
    """
    name = str(file) if file else DEFAULT_RULES
    try:
        table = tomllib.loads((files("carina.dicom") / DEFAULT_RULES).read_text(encoding="utf-8"))
        if file:
            own = tomllib.loads(Path(file).read_text(encoding="utf-8"))
            prefer = own.get("prefer", {})
            table = {**table, **own, "prefer": {**table["prefer"], **prefer} if isinstance(prefer, dict) else prefer}
        rules = msgspec.convert(table, Rules)
        for pattern in _patterns(rules):
            re.compile(pattern)
    except OSError as error:
        raise BadConfig("rules.unreadable", f"{name}: can't be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadConfig("rules.invalid", f"{name}: {error}. See docs/reading.md for the known keys.") from error
    except re.error as error:
        raise BadConfig("rules.pattern", f"{name}: {error.pattern!r} is no regular expression ({error}).") from error
    return rules


def _patterns(rules: Rules) -> tuple[str, ...]:
    return (
        *rules.kernel_include,
        *rules.kernel_exclude,
        *rules.description_include,
        *rules.description_exclude,
        *rules.image_type_exclude,
        *rules.prefer.kernel,
        *rules.prefer.description,
        rules.prefer.region_exclude,
    )


def broken_rules(found: Found, rules: Rules) -> list[Problem]:
    """Every rule that a series fails, as clauses; the modality alone where that is wrong."""
    if isinstance(found.source, VolumeFile) or (not found.modality and found.problems):
        return _size_rules(found, rules) if found.source else []
    if found.modality not in rules.modality:
        return [
            _rule("series.modality", f"Modality is {found.modality or 'empty'}, expected {' or '.join(rules.modality)}")
        ]
    return [*_text_rules(found, rules), *_plane_rules(found, rules), *_size_rules(found, rules)]


def _rule(code: str, words: str) -> Problem:
    return Problem(code=code, words=words)


def _text_rules(found: Found, rules: Rules) -> list[Problem]:
    broken = []
    for field, value, include, exclude in (
        ("Convolution Kernel", found.kernel, rules.kernel_include, rules.kernel_exclude),
        ("Series Description", found.description, rules.description_include, rules.description_exclude),
    ):
        hit = _match(exclude, value)
        if hit is not None:
            broken.append(_rule("series.rule", f"{field} '{value}' is excluded by '{hit}'"))
        elif include and _match(include, value) is None:
            broken.append(_rule("series.rule", f"{field} '{value}' is none of {', '.join(include)}"))
    for part in found.image_type:
        hit = _match(rules.image_type_exclude, part)
        if hit is not None:
            broken.append(_rule("series.rule", f"Image Type {text_of(found.image_type)} is excluded by '{hit}'"))
            break
    return broken


def _plane_rules(found: Found, rules: Rules) -> list[Problem]:
    if rules.plane == "any" or not found.plane:
        return []
    off = found.degrees_from_plane or 0.0
    if found.plane != rules.plane:
        return [_rule("series.plane", f"its slices are {found.plane}, expected {rules.plane}")]
    if off > rules.max_degrees_from_plane:
        limit = rules.max_degrees_from_plane
        return [
            _rule("series.plane", f"its slices are {off:.0f} degrees from {rules.plane}, at most {limit:g} expected")
        ]
    return []


def _size_rules(found: Found, rules: Rules) -> list[Problem]:
    broken = []
    if found.slices < rules.min_slices:
        words = f"it has {found.slices} slice{'s' * (found.slices != 1)}, at least {rules.min_slices} expected"
        broken.append(_rule("series.few-slices", words))
    spacing = found.slice_spacing_mm
    if spacing is not None and not rules.min_slice_spacing_mm <= spacing <= rules.max_slice_spacing_mm:
        broken.append(
            _rule(
                "series.spacing",
                f"its slices are {spacing:.2f} mm apart, expected {rules.min_slice_spacing_mm:g} to "
                f"{rules.max_slice_spacing_mm:g}",
            )
        )
    pixel = found.pixel_spacing_mm
    if pixel is not None and max(pixel) > rules.max_pixel_spacing_mm and not isinstance(found.source, VolumeFile):
        broken.append(
            _rule(
                "series.spacing", f"its pixels are {max(pixel):.2f} mm, at most {rules.max_pixel_spacing_mm:g} expected"
            )
        )
    if 0 < min(found.matrix) < rules.min_matrix:
        broken.append(
            _rule(
                "series.matrix",
                f"its matrix is {found.matrix[0]} x {found.matrix[1]}, at least {rules.min_matrix} expected",
            )
        )
    return broken


def _match(patterns: tuple[str, ...], value: str) -> str | None:
    """The first pattern found in a value."""
    return next((pattern for pattern in patterns if re.search(pattern, value, re.IGNORECASE)), None)


def _group(patterns: tuple[str, ...], value: str) -> int:
    """The index of the first pattern found in a value; their number where none is."""
    return next((k for k, pattern in enumerate(patterns) if re.search(pattern, value, re.IGNORECASE)), len(patterns))


def is_other_region(found: Found, rules: Rules) -> bool:
    """Whether Body Part Examined names another region than the chest."""
    pattern = rules.prefer.region_exclude
    return bool(pattern and re.search(pattern, found.body_part, re.IGNORECASE))


def merit(found: Found, criterion: Criterion, rules: Rules) -> float:
    """How good a series is by one criterion: higher is better, the scale is the criterion's own."""
    prefer = rules.prefer
    low, high = prefer.slice_spacing_mm
    spacing = found.slice_spacing_mm or high
    scores: dict[Criterion, float] = {
        "original": 0.0 if "DERIVED" in found.image_type or "REFORMATTED" in found.image_type else 1.0,
        "region": 0.0 if is_other_region(found, rules) else 1.0,
        "coverage": 1.0 if (found.coverage_mm or 0.0) >= prefer.coverage_mm else (found.coverage_mm or 0.0) / 1e6,
        "spacing": -round(max(low - spacing, spacing - high, 0.0), 2),
        "kernel": -float(_group(prefer.kernel, found.kernel)),
        "description": -float(_group(prefer.description, f"{found.description} {found.body_part}")),
        "slices": float(found.slices),
    }
    return scores[criterion]


def merits(found: Found, rules: Rules) -> tuple[float, ...]:
    """The key by which series are compared: DICOM before volume files, then the rules' order."""
    is_dicom = 0.0 if isinstance(found.source, VolumeFile) else 1.0
    return (is_dicom, *(merit(found, criterion, rules) for criterion in rules.prefer.order))


def why_better(winner: Found, other: Found, rules: Rules) -> str:
    """In words, the first criterion by which one series beats another."""
    if isinstance(other.source, VolumeFile) and not isinstance(winner.source, VolumeFile):
        return "it is a DICOM series"
    told: dict[Criterion, str] = {
        "original": "it is original, not derived",
        "region": f"this one shows {other.body_part}",
        "coverage": f"it covers {winner.coverage_mm or 0:.0f} mm, this one {other.coverage_mm or 0:.0f}",
        "spacing": f"slices are {winner.slice_spacing_mm or 0:.2f} mm apart, here {other.slice_spacing_mm or 0:.2f}",
        "kernel": f"its kernel {winner.kernel or '(empty)'} is preferred to {other.kernel or '(empty)'}",
        "description": "its description names the chest",
        "slices": f"it has {winner.slices} slices, this one {other.slices}",
    }
    for criterion in rules.prefer.order:
        if merit(winner, criterion, rules) > merit(other, criterion, rules):
            return told[criterion]
    return "they are equally good and its UID comes first"
