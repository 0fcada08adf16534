"""Which series may be taken: rules from a file, and what each series fails of them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

import msgspec

from carina.dicom.assemble import joined_text
from carina.dicom.found import Found
from carina.dicom.headers import SliceProblem
from carina.dicom.kernels import Sharpness
from carina.dicom.series import VolumeFile
from carina.dicom.words import first_match
from carina.errors import BadConfig
from carina.toml import mistakes, read_toml

DEFAULT_RULES = "default-series-rules.toml"

ScanPlane = Literal["axial", "coronal", "sagittal", "any"]
Criterion = Literal[
    "region", "coverage", "energy", "phase", "original", "spacing", "kernel", "contrast", "description", "slices"
]
Patterns = tuple[str, ...]


class Prefer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What makes one series better than another; ``order`` puts the most important first. Lengths in mm."""

    order: tuple[Criterion, ...] = get_args(Criterion)
    coverage_mm: float = 150.0
    coverage_part: float = 0.6
    slice_spacing_mm: tuple[float, float] = (0.5, 3.0)
    kernel: Patterns = ()
    kernels: tuple[Sharpness, ...] = tuple(Sharpness)
    region_include: Patterns = ()
    region_exclude: Patterns = ()
    region_never: Patterns = ()
    region_ignored: Patterns = ()
    energy_exclude: Patterns = ()
    original_exclude: Patterns = ()
    phase_include: Patterns = ()
    phase_exclude: Patterns = ()
    contrast_include: Patterns = ()
    contrast_exclude: Patterns = ()


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a series must be to be taken; patterns are regular expressions in which case does not matter."""

    modality: tuple[str, ...] = ("CT",)
    plane: ScanPlane = "axial"
    max_degrees_from_plane: float = 35.0
    min_slices: int = 10
    min_slice_spacing_mm: float = 0.2
    max_slice_spacing_mm: float = 10.0
    max_pixel_spacing_mm: float = 2.0
    min_matrix: int = 64
    kernel_include: Patterns = ()
    kernel_exclude: Patterns = ()
    description_include: Patterns = ()
    description_exclude: Patterns = ()
    image_type_exclude: Patterns = ()
    prefer: Prefer = Prefer()


def load_rules(file: Path | str | None = None) -> Rules:
    """Read rules from a TOML file over those that ship with Carina, which hold for every key it leaves out.

    Raises:
        BadConfig: the file can't be read, or holds an unknown key, a wrong value or a broken pattern.
    """
    table = tomllib.loads((files("carina.dicom") / DEFAULT_RULES).read_text(encoding="utf-8"))
    own = read_toml(Path(file), "rules") if file else None
    if own is not None:
        prefer = own.table.get("prefer", {})
        prefer = {**table["prefer"], **prefer} if isinstance(prefer, dict) else prefer
        table = {**table, **own.table, "prefer": prefer}
    wrong = [
        f"{own.place(one.key) if own else DEFAULT_RULES}: {'.'.join(one.key)}: {one.words}"
        for one in mistakes(table, Rules)
    ]
    if wrong:
        raise BadConfig("rules.invalid", *wrong)
    rules = msgspec.convert(table, Rules, strict=False)
    for pattern in _patterns(rules):
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            words = f"{file or DEFAULT_RULES}: {pattern!r} is no regular expression ({error})."
            raise BadConfig("rules.pattern", words) from error
    return rules


def _patterns(rules: Rules | Prefer) -> Iterator[str]:
    """Every regular expression of the rules."""
    for name in rules.__struct_fields__:
        value = getattr(rules, name)
        if isinstance(value, Prefer):
            yield from _patterns(value)
        elif name == "kernel" or name.endswith(("_include", "_exclude", "_never", "_ignored")):
            yield from value


def broken_rules(found: Found, rules: Rules) -> list[SliceProblem]:
    """Every rule that a series fails, as clauses; the modality alone where that is wrong."""
    if isinstance(found.source, VolumeFile) or (not found.modality and found.problems):
        return _size_rules(found, rules) if found.source else []
    if found.modality not in rules.modality:
        return [
            _rule("series.modality", f"Modality is {found.modality or 'empty'}, expected {' or '.join(rules.modality)}")
        ]
    return [*_text_rules(found, rules), *_plane_rules(found, rules), *_size_rules(found, rules)]


def _rule(code: str, words: str) -> SliceProblem:
    return SliceProblem(code=code, words=words)


def _text_rules(found: Found, rules: Rules) -> list[SliceProblem]:
    broken = []
    for field, value, include, exclude in (
        ("Convolution Kernel", found.kernel, rules.kernel_include, rules.kernel_exclude),
        ("Series Description", found.description, rules.description_include, rules.description_exclude),
    ):
        hit = first_match(exclude, value)
        if hit:
            broken.append(_rule("series.rule", f"{field} '{value}' is excluded by '{hit}'"))
        elif include and not first_match(include, value):
            broken.append(_rule("series.rule", f"{field} '{value}' is none of {', '.join(include)}"))
    hit = next(filter(None, (first_match(rules.image_type_exclude, part) for part in found.image_type)), "")
    if hit:
        broken.append(_rule("series.rule", f"Image Type {joined_text(found.image_type)} is excluded by '{hit}'"))
    return broken


def _plane_rules(found: Found, rules: Rules) -> list[SliceProblem]:
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


def _size_rules(found: Found, rules: Rules) -> list[SliceProblem]:
    broken = []
    if found.slices < rules.min_slices:
        words = f"it has {found.slices} slice{'s' * (found.slices != 1)}, at least {rules.min_slices} expected"
        broken.append(_rule("series.few-slices", words))
    spacing, low, high = found.slice_spacing_mm, rules.min_slice_spacing_mm, rules.max_slice_spacing_mm
    if spacing is not None and not low <= spacing <= high:
        words = f"its slices are {spacing:.2f} mm apart, expected {low:g} to {high:g}"
        broken.append(_rule("series.spacing", words))
    return [*broken, *_matrix_rules(found, rules)]


def _matrix_rules(found: Found, rules: Rules) -> list[SliceProblem]:
    broken = []
    pixel, widest = max(found.pixel_spacing_mm or (0.0,)), rules.max_pixel_spacing_mm
    if pixel > widest and not isinstance(found.source, VolumeFile):
        broken.append(_rule("series.spacing", f"its pixels are {pixel:.2f} mm, at most {widest:g} expected"))
    if 0 < min(found.matrix) < rules.min_matrix:
        words = f"its matrix is {found.matrix[0]} x {found.matrix[1]}, at least {rules.min_matrix} expected"
        broken.append(_rule("series.matrix", words))
    return broken
