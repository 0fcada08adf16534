"""Which of the series that fit is best, and why, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from carina.dicom.found import Found
from carina.dicom.kernels import sharpness
from carina.dicom.rules import Criterion, Prefer, Rules
from carina.dicom.series import VolumeFile
from carina.dicom.words import first_match

DERIVED = frozenset({"DERIVED", "REFORMATTED"})


class Region(IntEnum):
    """What the texts of a series say of where it lies, the worse the lower."""

    ELSEWHERE = 0
    UNTOLD = 1
    DISPUTED = 2
    CHEST = 3


def region(found: Found, prefer: Prefer) -> tuple[Region, str]:
    """The region that the description names, else Body Part Examined; and the text that names it.

    ``DISPUTED`` is a chest by its description whose Body Part Examined is another: often that of the first series of
    the study.
    """
    told, stated = _named(found.description, prefer), _named(found.body_part, prefer)
    if told is Region.CHEST and stated is Region.ELSEWHERE:
        return Region.DISPUTED, found.body_part
    return (stated, found.body_part) if told is Region.UNTOLD else (told, found.description)


def _named(text: str, prefer: Prefer) -> Region:
    if first_match(prefer.region_never, text):
        return Region.ELSEWHERE
    if first_match(prefer.region_include, text):
        return Region.CHEST
    is_elsewhere = first_match(prefer.region_exclude, text, but=prefer.region_ignored)
    return Region.ELSEWHERE if is_elsewhere else Region.UNTOLD


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How the series of one study (or path) are compared.

    Where other regions were reconstructed as well (``is_elsewhere``), a series that tells of none may be any of them;
    ``largest_mm`` is the widest coverage of those that show the chest.
    """

    prefer: Prefer
    is_elsewhere: bool
    largest_mm: float

    @classmethod
    def of(cls, fit: Sequence[Found], rules: Rules) -> Ranking:
        """The ranking of the series that fit the rules."""
        regions = [region(one, rules.prefer)[0] for one in fit]
        best = max(regions, default=Region.UNTOLD)
        covered = [one.coverage_mm or 0.0 for one, at in zip(fit, regions, strict=True) if at is best]
        is_elsewhere = Region.ELSEWHERE in regions
        return cls(prefer=rules.prefer, is_elsewhere=is_elsewhere, largest_mm=max(covered, default=0.0))

    def merits(self, found: Found) -> tuple[float, ...]:
        """The key by which series are compared: DICOM before volume files, then the rules' order; higher is better."""
        is_dicom = 0.0 if isinstance(found.source, VolumeFile) else 1.0
        return (is_dicom, *(MERITS[criterion](self, found) for criterion in self.prefer.order))

    def why_better(self, winner: Found, other: Found) -> str:
        """In words, the first criterion by which one series beats another."""
        if isinstance(other.source, VolumeFile) and not isinstance(winner.source, VolumeFile):
            return "it is a DICOM series"
        for criterion in self.prefer.order:
            if MERITS[criterion](self, winner) > MERITS[criterion](self, other):
                return _told(criterion, winner, other, self.prefer)
        return "they are equally good and its UID comes first"


def _region(ranking: Ranking, found: Found) -> float:
    at = region(found, ranking.prefer)[0]
    return float(Region.CHEST if at is Region.UNTOLD and not ranking.is_elsewhere else at)


def _coverage(ranking: Ranking, found: Found) -> float:
    """1 where the chest is covered, or about as much of it as any series covers."""
    covered, prefer = found.coverage_mm or 0.0, ranking.prefer
    is_enough = covered >= min(prefer.coverage_mm, prefer.coverage_part * ranking.largest_mm)
    return 1.0 if is_enough else covered / 1e6


def _energy(ranking: Ranking, found: Found) -> float:
    is_single = "VMI" in found.image_type or first_match(ranking.prefer.energy_exclude, found.description)
    return 0.0 if is_single else 1.0


def _phase(ranking: Ranking, found: Found) -> float:
    prefer = ranking.prefer
    is_wrong = first_match(prefer.phase_exclude, found.description) and not first_match(
        prefer.phase_include, found.description
    )
    return 0.0 if is_wrong else 1.0


def _original(ranking: Ranking, found: Found) -> float:
    is_derived = not DERIVED.isdisjoint(found.image_type) or first_match(
        ranking.prefer.original_exclude, found.description
    )
    return 0.0 if is_derived else 1.0


def _spacing(ranking: Ranking, found: Found) -> float:
    low, high = ranking.prefer.slice_spacing_mm
    spacing = found.slice_spacing_mm or high
    return -round(max(low - spacing, spacing - high, 0.0), 2)


def _kernel(ranking: Ranking, found: Found) -> float:
    """The rules' own groups of patterns first, then the class in the table of kernels."""
    prefer = ranking.prefer
    group = next(
        (k for k, pattern in enumerate(prefer.kernel) if first_match((pattern,), found.kernel)), len(prefer.kernel)
    )
    kind = sharpness(found.kernel, found.description)
    place = prefer.kernels.index(kind) if kind in prefer.kernels else len(prefer.kernels)
    return -float(group * (len(prefer.kernels) + 1) + place)


def _contrast(ranking: Ranking, found: Found) -> float:
    prefer = ranking.prefer
    if first_match(prefer.contrast_include, found.description):
        return 1.0
    return -1.0 if first_match(prefer.contrast_exclude, found.description) else 0.0


def _description(ranking: Ranking, found: Found) -> float:
    """1 where the chest alone is named, half where other regions are as well."""
    prefer = ranking.prefer
    at, text = region(found, prefer)
    if at is not Region.CHEST:
        return 0.0
    return 0.5 if first_match(prefer.region_exclude, text) else 1.0


def _slices(ranking: Ranking, found: Found) -> float:
    return float(found.slices)


MERITS: dict[Criterion, Callable[[Ranking, Found], float]] = {
    "region": _region,
    "coverage": _coverage,
    "energy": _energy,
    "phase": _phase,
    "original": _original,
    "spacing": _spacing,
    "kernel": _kernel,
    "contrast": _contrast,
    "description": _description,
    "slices": _slices,
}
"""How good a series is by each criterion: higher is better, the scale is the criterion's own."""


def _told(criterion: Criterion, winner: Found, other: Found, prefer: Prefer) -> str:
    """Why a criterion prefers one series to another."""
    place = region(other, prefer)[1]
    told: dict[Criterion, str] = {
        "region": f"this one shows {place}" if place.strip() else "this one names no part of the body",
        "coverage": f"it covers {winner.coverage_mm or 0:.0f} mm, this one {other.coverage_mm or 0:.0f}",
        "energy": "this one is computed for one energy",
        "phase": "this one was taken in expiration, lying on the front or breathing freely",
        "original": "it is original, not derived",
        "spacing": f"slices are {winner.slice_spacing_mm or 0:.2f} mm apart, here {other.slice_spacing_mm or 0:.2f}",
        "kernel": f"its kernel {winner.kernel or '(empty)'} is preferred to {other.kernel or '(empty)'}",
        "contrast": "it has less contrast medium",
        "description": "its description names the chest",
        "slices": f"it has {winner.slices} slices, this one {other.slices}",
    }
    return told[criterion]
