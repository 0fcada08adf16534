"""The look of a report: one page frame, a few styles, a facts block, tables, bars and a sheet of slices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab import rl_config
from reportlab.graphics.shapes import Drawing, Line, Rect, String
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    Image,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from carina import RESEARCH_ONLY
from carina.report.fonts import BOLD, SANS, printable
from carina.report.numbers import probability_text
from carina.report.paint import LESION_RGB, LUNG_RGB

INK = HexColor(0x1F2328)
MUTED = HexColor(0x656D76)
RULE = HexColor(0xD0D7DE)
TRACK = HexColor(0xEEF1F4)
AMBER = HexColor(0xFFF3D6)
AMBER_INK = HexColor(0x7A4B00)
SLATE = HexColor(0x4B5A6B)
LESION_COLOUR = Color(*(part / 255 for part in LESION_RGB))
LUNG_COLOUR = Color(*(part / 255 for part in LUNG_RGB))

MARGIN = 16 * mm
TOP = 23 * mm
BOTTOM = 15 * mm
WIDTH = A4[0] - 2 * MARGIN

TALLEST = 68 * mm
"""Height of a picture: three rows of them fit on a page."""

LOW = 39 * mm
"""Height of a picture where two rows of them stand on the page of the result."""

PICTURE_GAP = 3 * mm

GAP = 4 * mm
BESIDE = 74 * mm
"""The panel beside a result, and what parts the two."""

MAIN = WIDTH - BESIDE - GAP
"""What is left for the result."""

BODY = ParagraphStyle("body", fontName=SANS, bulletFontName=SANS, fontSize=9, leading=12.5, textColor=INK)
SMALL = ParagraphStyle("small", parent=BODY, fontSize=7.5, leading=10, textColor=MUTED)
FINE = ParagraphStyle("fine", parent=BODY, fontSize=8, leading=10.5)
TITLE = ParagraphStyle("title", parent=BODY, fontName=BOLD, fontSize=19, leading=24)
HEADING = ParagraphStyle("heading", parent=BODY, fontName=BOLD, fontSize=10.5, leading=14, spaceBefore=9, spaceAfter=4)
FIRST_HEADING = ParagraphStyle("first heading", parent=HEADING, spaceBefore=0)
NUMBER = ParagraphStyle("number", parent=BODY, alignment=TA_RIGHT)
SMALL_RIGHT = ParagraphStyle("small right", parent=SMALL, alignment=TA_RIGHT)
SMALL_INDENTED = ParagraphStyle("small indented", parent=SMALL, leftIndent=3 * mm)
STRONG = ParagraphStyle("strong", parent=BODY, fontName=BOLD)
INDENTED = ParagraphStyle("indented", parent=BODY, leftIndent=4 * mm)
HUGE = ParagraphStyle("huge", parent=BODY, fontName=BOLD, fontSize=32, leading=36)
LEAD = ParagraphStyle("lead", parent=BODY, fontSize=11.5, leading=15)
BULLET = ParagraphStyle("bullet", parent=BODY, leftIndent=10, bulletIndent=0, spaceAfter=2)
CAUTION = ParagraphStyle("caution", parent=BODY, textColor=AMBER_INK)
FINE_BULLET = ParagraphStyle("fine bullet", parent=BULLET, fontSize=8, leading=10.2, spaceAfter=1.5)
WORTH = ParagraphStyle("worth", parent=FINE_BULLET, textColor=AMBER_INK)
WORTH_NAME = ParagraphStyle("worth name", parent=WORTH, fontName=BOLD, leftIndent=0, spaceBefore=2)
WORTH_HEADING = ParagraphStyle("worth heading", parent=HEADING, textColor=AMBER_INK, spaceBefore=0, spaceAfter=3)

rl_config.useA85 = 0
"""Pictures stand in the file as they are: as ASCII they would be a quarter larger, and take ReportLab a while."""

BARE = [
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("RIGHTPADDING", (0, 0), (-1, -1), 0),
    ("FONTNAME", (0, 0), (-1, -1), SANS),
]
"""How every table of ours begins: cells without padding, and empty ones in our font too."""


def build(story: Sequence[Any], title: str, foot: str) -> bytes:
    """The pages as PDF bytes: the same story always gives the same bytes. ``foot`` stands at each page's end."""

    out = io.BytesIO()
    document = BaseDocTemplate(
        out, pagesize=A4, title=title, author="Carina", subject=RESEARCH_ONLY, invariant=1, initialFontName=SANS
    )
    room = Frame(MARGIN, BOTTOM, WIDTH, A4[1] - TOP - BOTTOM, 0, 0, 0, 0)
    template = PageTemplate(frames=[room], onPage=lambda canvas, _document: _frame(canvas, foot))
    document.addPageTemplates([template])
    document.build(list(story), canvasmaker=_counting_canvas)
    return out.getvalue()


def _counting_canvas(*arguments: Any, **named: Any) -> Any:
    """A canvas that fills in ``Page n of N`` when all pages are known: each page shows a form that is drawn last."""
    canvas = Canvas(*arguments, **named)
    finish = canvas.save

    def save() -> None:
        total = canvas.getPageNumber() - 1
        for number in range(1, total + 1):
            canvas.beginForm(f"page{number}")
            canvas.setFillColor(MUTED)
            canvas.setFont(SANS, 6.5)
            canvas.drawRightString(A4[0] - MARGIN, 10 * mm, f"Page {number} of {total}")
            canvas.endForm()
        finish()

    canvas.save = save
    return canvas


def _frame(canvas: Any, foot: str) -> None:
    canvas.saveState()
    top = A4[1] - 14 * mm
    canvas.setFillColor(INK)
    canvas.setFont(BOLD, 11)
    canvas.drawString(MARGIN, top, "Carina")
    canvas.setFillColor(MUTED)
    canvas.setFont(SANS, 9)
    canvas.drawString(MARGIN + 40, top, "chest CT analysis")
    width = canvas.stringWidth(RESEARCH_ONLY, BOLD, 9) + 16
    canvas.setFillColor(AMBER)
    canvas.roundRect(A4[0] - MARGIN - width, top - 6, width, 19, 3, stroke=0, fill=1)
    canvas.setFillColor(AMBER_INK)
    canvas.setFont(BOLD, 9)
    canvas.drawRightString(A4[0] - MARGIN - 8, top, RESEARCH_ONLY)
    canvas.setStrokeColor(RULE)
    canvas.setLineWidth(0.5)
    canvas.line(MARGIN, top - 12, A4[0] - MARGIN, top - 12)
    canvas.setFillColor(MUTED)
    canvas.setFont(SANS, 6.5)
    canvas.drawString(MARGIN, 10 * mm, printable(foot))
    canvas.doForm(f"page{canvas.getPageNumber()}")
    canvas.restoreState()


def plain(text: str) -> str:
    """Printable text as a paragraph takes it, without markup."""
    return escape(printable(text))


def paragraph(text: str, style: ParagraphStyle = BODY) -> Any:
    """A paragraph of plain text."""
    return Paragraph(plain(text), style)


def bullets(sentences: Sequence[str], style: ParagraphStyle = BULLET) -> list[Any]:
    """Sentences, one a line, with a dash before each."""
    return [Paragraph(plain(sentence), style, bulletText="\u2013") for sentence in sentences]


def panel(heading: str, told: Mapping[str, Sequence[str]]) -> list[Any]:
    """Sentences, those of each part below its name; a part may have none."""
    content = [paragraph(heading, WORTH_HEADING)]
    for name, sentences in told.items():
        content += [paragraph(name, WORTH_NAME)] if name else []
        content += bullets(sentences, WORTH)
    return content


def beside(result: Sequence[Any], worth: Sequence[Any]) -> Any:
    """A result of width ``MAIN`` with what it is worth beside it, on amber; both may flow over pages."""
    table = Table([[list(result), "", list(worth)]], colWidths=[MAIN, GAP, BESIDE], splitInRow=1)
    table.setStyle(
        TableStyle(
            [
                *BARE,
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("BACKGROUND", (2, 0), (2, -1), AMBER),
                ("TOPPADDING", (0, 0), (1, -1), 0),
                ("TOPPADDING", (2, 0), (2, -1), 6),
                ("LEFTPADDING", (2, 0), (2, -1), 8),
                ("RIGHTPADDING", (2, 0), (2, -1), 8),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
            ]
        )
    )
    return table


def section(heading: str, content: Sequence[Any]) -> list[Any]:
    """A heading that stays with the first thing below it; nothing where there is no content."""
    if not content:
        return []
    return [KeepTogether([paragraph(heading, HEADING), content[0]]), *content[1:]]


def facts_block(pairs: Sequence[tuple[str, str]]) -> Any:
    """Names and values in two columns, filled downwards."""
    half = (len(pairs) + 1) // 2
    filled = [*pairs, *[("", "")] * (2 * half - len(pairs))]
    rows = []
    for left, right in zip(filled[:half], filled[half:], strict=True):
        rows.append(
            [paragraph(text, style) for pair in (left, right) for text, style in zip(pair, (SMALL, BODY), strict=True)]
        )
    table = Table(rows, colWidths=[23 * mm, WIDTH / 2 - 25 * mm, 23 * mm, WIDTH / 2 - 21 * mm])
    table.setStyle(
        TableStyle(
            [
                *BARE,
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("TOPPADDING", (0, 0), (0, -1), 2.5),
                ("TOPPADDING", (2, 0), (2, -1), 2.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
                ("RIGHTPADDING", (1, 0), (1, -1), 8),
                ("LINEABOVE", (0, 0), (-1, 0), 0.5, RULE),
                ("LINEBELOW", (0, -1), (-1, -1), 0.5, RULE),
            ]
        )
    )
    return table


def headline(number: str, lines: Sequence[str], across: float = WIDTH) -> Any:
    """A large number with what it means beside it, ``across`` points in all."""
    width = 12 + 19.5 * len(number)
    text = [paragraph(lines[0], LEAD), *(paragraph(line) for line in lines[1:])]
    table = Table([[paragraph(number, HUGE), text]], colWidths=[width, across - width])
    table.setStyle(TableStyle([*BARE, ("VALIGN", (0, 0), (-1, -1), "MIDDLE")]))
    return table


def bar(part: float, width: float, indent: float) -> Any:
    """A track of ``width`` points, ``indent`` from the left, filled to ``part`` (0 to 1) in the lesion's colour."""
    height = 6.0
    drawing = sketch(indent + width, height)
    drawing.add(Rect(indent, 0, width, height, fillColor=TRACK, strokeColor=None))
    if part > 0:
        filled = max(0.8, width * min(part, 1.0))
        drawing.add(Rect(indent, 0, filled, height, fillColor=LESION_COLOUR, strokeColor=None))
    return drawing


def probability_bars(probabilities: Sequence[tuple[str, float]]) -> Any:
    """One bar a class on a scale from 0 to 1 that is drawn whole, with the number behind it; as wide as ``MAIN``."""
    left, right, row = 27 * mm, 13 * mm, 19.0
    width, height = MAIN - left - right, row * len(probabilities)
    drawing = sketch(MAIN, height + 14)
    for step in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + step * width
        drawing.add(Line(x, 10, x, height + 12, strokeColor=RULE, strokeWidth=0.5))
        drawing.add(String(x, 0, f"{step:g}", fontName=SANS, fontSize=7, fillColor=MUTED, textAnchor="middle"))
    for place, (name, value) in enumerate(probabilities):
        y = height + 12 - (place + 1) * row + 4
        drawing.add(Rect(left, y, width, 11, fillColor=TRACK, strokeColor=None, fillOpacity=0.75))
        drawing.add(Rect(left, y, max(0.8, width * value), 11, fillColor=SLATE, strokeColor=None))
        drawing.add(String(0, y + 2, printable(name), fontName=SANS, fontSize=9.5, fillColor=INK))
        text = String(MAIN, y + 2, probability_text(value), fontName=BOLD, fontSize=9.5, fillColor=INK)
        text.textAnchor = "end"
        drawing.add(text)
    return drawing


def number_table(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], widths: Sequence[float], rules: Sequence[int]
) -> Any:
    """A table with a muted head; ``rules`` are the rows above which a line is drawn, counted without the head."""
    table = Table([list(head), *[list(row) for row in rows]], colWidths=list(widths), repeatRows=1)
    lines = [("LINEABOVE", (0, place + 1), (-1, place + 1), 0.5, RULE) for place in rules]
    table.setStyle(
        TableStyle(
            [
                *BARE,
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
                ("LINEBELOW", (0, -1), (-1, -1), 0.5, RULE),
                *lines,
            ]
        )
    )
    return table


Picture = tuple[bytes, tuple[int, int], str]
"""A JPEG, its size in pixels (width, height), and its caption."""


def picture_sheet(pictures: Sequence[Picture], across: int = 3, tallest: float = TALLEST) -> Any:
    """Pictures, ``across`` in a row, as large as their place and ``tallest`` (points) allow."""
    width = (WIDTH - PICTURE_GAP * (across - 1)) / across
    cells: list[Any] = []
    for data, (columns, rows), caption in pictures:
        scale = min(width / columns, tallest / rows)
        image = Image(io.BytesIO(data), columns * scale, rows * scale, hAlign="LEFT")
        cells.append([image, Spacer(1, 2), paragraph(caption, SMALL)])
    rows_of: list[list[Any]] = [cells[start : start + across] for start in range(0, len(cells), across)]
    rows_of[-1] = [*rows_of[-1], *[""] * (across - len(rows_of[-1]))]
    table = Table(rows_of, colWidths=[width + PICTURE_GAP] * (across - 1) + [width])
    table.setStyle(TableStyle([*BARE, ("VALIGN", (0, 0), (-1, -1), "TOP"), ("BOTTOMPADDING", (0, 0), (-1, -1), 4)]))
    return table


def picture_rows(title: str, rows: Sequence[Sequence[Picture]], legend: Any) -> list[Any]:
    """Low pictures in rows; the heading stays with the first, the legend with the last, wherever a page ends."""
    across = max(len(row) for row in rows)
    drawn: list[list[Any]] = [[picture_sheet(row, across, LOW)] for row in rows]
    drawn[0].insert(0, paragraph(title, HEADING))
    drawn[-1].append(legend)
    return [KeepTogether(row) for row in drawn]


def notice(text: str) -> Any:
    """A sentence that must not be overlooked, on amber."""
    table = Table([[paragraph(text, CAUTION)]], colWidths=[WIDTH], spaceBefore=9, spaceAfter=2)
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), AMBER),
                ("LEFTPADDING", (0, 0), (-1, -1), 8),
                ("RIGHTPADDING", (0, 0), (-1, -1), 8),
                ("TOPPADDING", (0, 0), (-1, -1), 5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 6),
            ]
        )
    )
    return table


def sketch(width: float, height: float) -> Any:
    """An empty drawing that asks for no other font than ours."""
    return Drawing(width, height, initialFontName=SANS)


def legend(note: str, *, with_lesion: bool) -> Any:
    """What the colours of the pictures mean, and a note behind it."""
    drawing = sketch(WIDTH, 10)
    drawing.add(Line(0, 4, 14, 4, strokeColor=LUNG_COLOUR, strokeWidth=2))
    drawing.add(String(18, 1, "lung", fontName=SANS, fontSize=7.5, fillColor=INK))
    if with_lesion:
        red = {"fillColor": LESION_COLOUR, "strokeColor": LESION_COLOUR}
        drawing.add(Rect(44, 1, 14, 6.5, fillOpacity=0.45, strokeWidth=1, **red))
        drawing.add(String(62, 1, "lesion", fontName=SANS, fontSize=7.5, fillColor=INK))
    drawing.add(String(96 if with_lesion else 44, 1, printable(note), fontName=SANS, fontSize=7.5, fillColor=MUTED))
    return drawing
