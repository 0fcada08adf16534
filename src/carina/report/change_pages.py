"""The report on what changed since earlier scans: sentences, volume and ratio over time, and a row for each scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.graphics.shapes import Circle, Line, PolyLine, String
from reportlab.lib.colors import white
from reportlab.lib.units import mm
from reportlab.platypus import Spacer

from carina.measure.change import LesionChange, ScanFindings
from carina.measure.texts import ml_text, percent_text
from carina.report import layout as page
from carina.report.change import Course, change_sentences, courses, cut_note, day_text
from carina.report.facts import ReportFacts
from carina.report.fonts import SANS, printable
from carina.report.pages import made_by, opening

CHANGE_TITLE = "Change since earlier scans"

READ_WITH_CARE = (
    "Both scans were measured by a network, each with its own error; a small change can be that error alone.",
    "Breath, contrast medium, slice thickness and kernel change volumes and HU as well.",
    "That the scans are of one patient follows from Patient ID and issuer alone.",
)

_PLOT_WIDTH, _PLOT_HEIGHT = page.WIDTH / 2 - 6 * mm, 38 * mm


def change_pdf(later: ScanFindings, earlier: Sequence[ScanFindings], facts: ReportFacts) -> bytes:
    """What changed as A4 pages in PDF; the same values give the same bytes. The first of ``earlier`` is compared with.

    Raises:
        ValueError: there is no earlier scan.
    """
    if not earlier:
        raise ValueError("a change needs an earlier scan")
    said = change_sentences(LesionChange(earlier=earlier[0], later=later))
    result = [page.paragraph(said[0], page.LEAD), *page.bullets(said[1:])]
    result += [Spacer(1, 6), _table((*reversed(earlier), later))]
    result += [page.paragraph(note, page.SMALL)] if (note := cut_note((*earlier, later))) else []
    result += made_by(facts)
    worth = page.panel("How to read this", {"": READ_WITH_CARE})
    story = [*opening(CHANGE_TITLE, facts), page.beside(result, worth)]
    for course in courses((*earlier, later)):
        story += [page.paragraph(course.title, page.HEADING), _plot(course)]
    return page.build(story, CHANGE_TITLE, f"Series {facts.series_uid}")


def _table(scans: Sequence[ScanFindings]) -> Any:
    heads = [page.paragraph(name, style) for name, style, _ in _COLUMNS]
    rows = [
        [
            page.paragraph(day_text(scan), page.STRONG),
            page.paragraph(ml_text(scan.lungs.lung_ml), page.NUMBER),
            page.paragraph(ml_text(scan.lungs.lesion_ml), page.NUMBER),
            page.paragraph(percent_text(scan.lungs.ratio_percent), page.NUMBER),
        ]
        for scan in scans
    ]
    return page.number_table(heads, rows, [width for _, _, width in _COLUMNS], [0])


_COLUMNS = (
    ("Study date", page.SMALL, 30 * mm),
    ("Lung ml", page.SMALL_RIGHT, 20 * mm),
    ("Lesion ml", page.SMALL_RIGHT, 20 * mm),
    ("Ratio %", page.SMALL_RIGHT, 20 * mm),
)


def _plot(course: Course) -> Any:
    """A line from scan to scan, on a scale from zero to the highest value, both written beside it.

    The circle of a scan that ends inside the lungs is hollow.
    """
    left, foot = 18 * mm, 12.0
    drawing = page.sketch(left + _PLOT_WIDTH + 30 * mm, foot + _PLOT_HEIGHT + 8)
    places = [(left + one.when * _PLOT_WIDTH, foot + one.height * _PLOT_HEIGHT) for one in course.points]
    small = {"fontName": SANS, "fontSize": 7, "fillColor": page.MUTED}
    for height, text in ((0.0, "0"), (1.0, course.top)):
        y = foot + height * _PLOT_HEIGHT
        drawing.add(Line(left, y, left + _PLOT_WIDTH, y, strokeColor=page.RULE, strokeWidth=0.5))
        drawing.add(String(left - 4, y - 2.5, printable(text), textAnchor="end", **small))
    drawing.add(PolyLine([part for place in places for part in place], strokeColor=page.SLATE, strokeWidth=1.2))
    for (x, y), point in zip(places, course.points, strict=True):
        inside = white if point.is_cut else page.LESION_COLOUR
        drawing.add(Circle(x, y, 2.4, fillColor=inside, strokeColor=page.LESION_COLOUR if point.is_cut else None))
    for (x, _), point in ((places[0], course.points[0]), (places[-1], course.points[-1])):
        drawing.add(String(x, 1, printable(point.words.partition(":")[0]), textAnchor="middle", **small))
    return drawing
