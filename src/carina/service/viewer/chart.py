"""The histogram of HU as a drawing: paths and labels for a page's own colours, and the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carina.measure.change import ScanFindings
from carina.measure.histogram import HuHistogram
from carina.measure.texts import ml_text
from carina.report.change import Course, courses
from carina.report.numbers import PAGE_MINUS

FIELD_WIDTH, FIELD_HEIGHT = 640.0, 180.0
"""The drawing's field in its own units, without the labels below it."""

TICKS_HU = (-1000, -800, -600, -400, -200, 0, 200)


@dataclass(frozen=True, kw_only=True)
class TimeChart:
    """Values over time: a line through points ``(x, y, words, is_cut)`` of the field, ``top`` at its upper edge."""

    title: str
    line: str
    points: tuple[tuple[float, float, str, bool], ...]
    top: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Paths in a field of ``FIELD_WIDTH`` by ``FIELD_HEIGHT``, ticks as ``(x, text)``, and all of it in words."""

    lung: str
    lesion: str
    ticks: tuple[tuple[float, str], ...]
    highest_ml: str
    words: str


def hu_chart(found: HuHistogram) -> Chart:
    """The drawing of a histogram."""
    top = float(found.lung_ml.max()) or 1.0
    low, high = float(found.edges_hu[0]), float(found.edges_hu[-1])
    ticks = tuple(
        (round(FIELD_WIDTH * (hu - low) / (high - low), 1), f"{hu}".replace("-", PAGE_MINUS)) for hu in TICKS_HU
    )
    middle, tenth, ninetieth = (
        f"{value:.0f}".replace("-", PAGE_MINUS) for value in (found.median_hu, found.tenth_hu, found.ninetieth_hu)
    )
    return Chart(
        lung=bar_path([float(value) for value in found.lung_ml], top),
        lesion=bar_path([float(value) for value in found.lesion_ml], top),
        ticks=ticks,
        highest_ml=f"{ml_text(top)} ml",
        words=f"HU in the lungs: median {middle}, from {tenth} (tenth percentile) to {ninetieth} (ninetieth).",
    )


def bar_path(values: Sequence[float], top: float) -> str:
    """A closed path along the tops of bars that fill the field; ``top`` is the value at its upper edge."""
    width = FIELD_WIDTH / len(values)
    path = [f"M0 {FIELD_HEIGHT:g}"]
    for number, value in enumerate(values):
        path.append(f"V{FIELD_HEIGHT * (1 - value / top):.1f}H{width * (number + 1):.1f}")
    return "".join([*path, f"V{FIELD_HEIGHT:g}Z"])


def time_charts(scans: Sequence[ScanFindings]) -> list[TimeChart]:
    """Lesion volume and ratio over the scans that have a date; none where fewer than two days have one."""
    return [_time_chart(course) for course in courses(scans)]


def _time_chart(course: Course) -> TimeChart:
    points = tuple(
        (round(FIELD_WIDTH * one.when, 1), round(FIELD_HEIGHT * (1 - one.height), 1), one.words, one.is_cut)
        for one in course.points
    )
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in points)
    return TimeChart(title=course.title, line=line, points=points, top=course.top)
