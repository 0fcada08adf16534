"""The part of the classification's report that says what the probability depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reportlab.graphics.shapes import Line, Rect, String
from reportlab.lib.colors import Color

from carina.measure.findings import SaliencyFindings, SaliencyMethod
from carina.report import layout as page
from carina.report.facts import ReportFacts
from carina.report.fonts import SANS, printable
from carina.report.numbers import MINUS, probability_change
from carina.report.paint import NO_CT_GREY, OUTLINE_RGB, saliency_colour
from carina.report.pictures import PICTURE_PX, how_shown, lung_window, picture_of

LEAST_SCALE = 0.01
"""The colours' scale reaches at least to this change of probability or log-odds: next to nothing must not look like
much."""

SCALE_WORDS = {
    SaliencyMethod.OCCLUSION: "change of probability: + is what the place adds to it, and what is lost when it is "
    "hidden",
    SaliencyMethod.ACTIVATION: "part of the log-odds: + is what the place adds to them",
}

PICTURES_TITLES = {
    SaliencyMethod.OCCLUSION: "What hiding places does, in slices spread over the lungs",
    SaliencyMethod.ACTIVATION: "What places add, in slices spread over the lungs",
}

STEPS = 48
BAR = 150.0

MEANING = "It does not show where disease is, how much of it there is, or whether the number is right."
TOLD_APART = {
    SaliencyMethod.OCCLUSION: "Where several places look alike, hiding one of them may change nothing; nothing smaller "
    "than a block is told apart.",
    SaliencyMethod.ACTIVATION: "A place sees far beyond its own borders; nothing smaller than a place is told apart.",
}

_AXES = ("right and left", "front and back", "head and feet")


def saliency_words(found: SaliencyFindings | None) -> list[Any]:
    """How the saliency was made and what it means; nothing where it was not made."""
    if found is None or not found.key_slices:
        return []
    text = f"{_said(found)} {MEANING} {TOLD_APART[found.method]}"
    return [page.paragraph("What the probability depends on", page.HEADING), page.paragraph(text, page.FINE)]


def saliency_pictures(found: SaliencyFindings | None, facts: ReportFacts) -> list[Any]:
    """Slices as they are, below them the changes painted over them, and their scale; nothing where it was not made."""
    if found is None or not found.key_slices:
        return []
    slices = found.key_slices
    limit = max(found.highest, -found.lowest, LEAST_SCALE)
    window = lung_window(slices)
    bare = [picture_of(replace(key, saliency=None), window, facts, PICTURE_PX) for key in slices]
    painted = [picture_of(key, window, facts, PICTURE_PX, limit) for key in slices]
    scale = _scale(limit, SCALE_WORDS[found.method], how_shown(slices, facts))
    return page.picture_rows(PICTURES_TITLES[found.method], [bare, painted], scale)


def _said(found: SaliencyFindings) -> str:
    return _added(found) if found.method is SaliencyMethod.ACTIVATION else _hidden(found)


def _added(found: SaliencyFindings) -> str:
    """What places add to the log-odds."""
    blocks = " \u00d7 ".join(str(count) for count in found.blocks)
    blind = [axis for axis, count in zip(_AXES, found.blocks, strict=True) if count == 1]
    how = (
        f"The network sums up what it saw in {blocks} places of the box around the lungs, so that the part of each in "
        "the log-odds is known (class activation)"
    )
    how += f"; {' and '.join(blind)} are not told apart. " if blind else ". "
    largest = max(found.highest, -found.lowest)
    if largest < LEAST_SCALE:
        return f"{how}No place changes the log-odds of {found.label} by more than {max(largest, 0.001):.3f}."
    more, less = (probability_change(max(value, 0)) for value in (found.highest, -found.lowest))
    return f"{how}Orange: the place speaks for {found.label}, at most by {more}; blue: against it, at most by {less}."


def _hidden(found: SaliencyFindings) -> str:
    """What hiding places does to the probability."""
    blocks = " \u00d7 ".join(str(count) for count in found.blocks)
    how = (
        f"The box around the lungs was hidden from the network block by block ({blocks}), each filled with the density "
        "of this scan's own aerated lung. "
    )
    largest = max(found.highest, -found.lowest)
    if largest < LEAST_SCALE:
        return f"{how}No block changes the probability of {found.label} by more than {max(largest, 0.001):.3f}."
    fall, rise = (probability_change(max(value, 0)) for value in (found.highest, -found.lowest))
    return (
        f"{how}Orange: the probability of {found.label} falls when the place is hidden, at most by {fall}; "
        f"blue: it rises, at most by {rise}."
    )


def _scale(limit: float, words: str, note: str) -> Any:
    """The colours from most against the class to most for it, the unit, and the lung's outline."""
    drawing = page.sketch(page.WIDTH, 32)
    width, small = BAR / STEPS, {"fontName": SANS, "fontSize": 7.5}
    for step in range(STEPS):
        rgb, alpha = saliency_colour(2 * (step + 0.5) / STEPS - 1)
        mixed = Color(*((part * alpha + NO_CT_GREY[1] * (1 - alpha)) / 255 for part in rgb))
        drawing.add(Rect(step * width, 22, width + 0.3, 8, fillColor=mixed, strokeColor=None))
    ends = (f"{MINUS}{probability_change(limit)}", "start"), ("0", "middle"), (f"+{probability_change(limit)}", "end")
    for place, (text, anchor) in enumerate(ends):
        drawing.add(String(BAR * place / 2, 12, text, fillColor=page.MUTED, textAnchor=anchor, **small))
    drawing.add(String(BAR + 10, 23, words, fillColor=page.INK, **small))
    drawing.add(Line(0, 4, 14, 4, strokeColor=Color(*(part / 255 for part in OUTLINE_RGB)), strokeWidth=2))
    drawing.add(String(18, 1, "lung", fillColor=page.INK, **small))
    drawing.add(String(44, 1, printable(note), fillColor=page.MUTED, **small))
    return drawing
