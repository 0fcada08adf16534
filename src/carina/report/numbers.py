"""Figures as a report shows them: the same text on a page of the viewer as in the PDF."""

from __future__ import annotations

import re
from collections.abc import Sequence

from carina.measure.findings import RegionFindings

MINUS = "\u2013"
"""The standard fonts have no minus sign; the en dash has its width."""

PAGE_MINUS = "\u2212"
"""The minus sign itself, for pages: a line may break behind an en dash, but not behind this (UAX 14, LB25)."""

_MINUS_OF_A_NUMBER = re.compile(rf"(?<!\w){MINUS}(?=\d)")

NOT_TOLD = "not told"
"""What stands in place of a third of a lung where less than half of the lungs' height is in view."""

_SIDES = ("lungs", "right", "left")

_THIRD = "third"


def page_text(text: str) -> str:
    """A text of a report as a page shows it: with the minus sign itself before numbers; ranges keep their dash."""
    return _MINUS_OF_A_NUMBER.sub(PAGE_MINUS, text)


def difference_text(value: float | None) -> str:
    """A difference of two volumes in ml, its sign told; a plain 0 where there is none, a dash where it is not known."""
    if value is None:
        return "\u2013"
    if abs(value) < 0.05:
        return "0.0" if value else "0"
    return f"{value:+,.{0 if abs(value) >= 100 else 1}f}".replace(",", "\u00a0").replace("-", MINUS)


def compared_ml(first: float, second: float) -> tuple[str, str, str]:
    """Two volumes in ml and the first minus the second, with one decimal: the difference is that of what is shown."""
    shown = [round(value, 1) for value in (first, second)]
    texts = ["< 0.1" if 0 < value < 0.05 else f"{value:,.1f}".replace(",", "\u00a0") for value in (first, second)]
    difference = round(shown[0] - shown[1], 1)
    sign = f"{difference:+,.1f}".replace(",", "\u00a0").replace("-", MINUS) if difference else "0.0"
    return texts[0], texts[1], "0" if first == second else sign


def range_text(lowest: float | None, highest: float | None) -> str:
    """Two differences as a range; one of them where both read the same."""
    ends = dict.fromkeys((difference_text(lowest), difference_text(highest)))
    return " to ".join(ends)


def hu_text(value: float | None) -> str:
    """Whole HU; a dash where nothing could be measured."""
    return "\u2013" if value is None else f"{value:.0f}".replace("-", MINUS)


def probability_text(value: float) -> str:
    """Two decimals; what would read as certain does not: ``< 0.01``, ``> 0.99``."""
    if value < 0.01:
        return "< 0.01"
    return "> 0.99" if value > 0.99 else f"{value:.2f}"


def probability_change(value: float) -> str:
    """A change of a probability: three decimals where two would show next to nothing."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def in_report_order(regions: Sequence[RegionFindings]) -> list[RegionFindings]:
    """Both lungs, then the right with its thirds, then the left with its own: as the patient faces the reader."""
    return sorted(regions, key=lambda region: _SIDES.index(region.region.split()[0]))


def without_thirds(regions: Sequence[RegionFindings]) -> frozenset[str]:
    """The lungs (``left lung``) that have no thirds among these regions."""
    names = [one.region for one in regions]
    lungs = (name for name in names if len(name.split()) == 2)
    return frozenset(lung for lung in lungs if not any(name.startswith(f"{lung} ") for name in names))


def site_name(region: str) -> str:
    """Where a lesion lies, and that its third is not told where it is not."""
    return region if region.endswith(_THIRD) else f"{region}, {_THIRD} {NOT_TOLD}"


def region_name(region: str) -> tuple[str, bool]:
    """What a row is called, and whether it is a part of the lung above it."""
    words = region.split()
    return " ".join(words[2:] or words).capitalize(), len(words) > 2
