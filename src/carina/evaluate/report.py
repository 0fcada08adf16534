"""An evaluation as a PDF: what was measured, the figures, plots, and the worst cases as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reportlab.graphics.shapes import Line, String
from reportlab.lib.units import mm
from reportlab.platypus import CondPageBreak, KeepTogether, Spacer

from carina import __version__
from carina.errors import BadConfig
from carina.evaluate.plots import classification_plots, segmentation_plots
from carina.evaluate.summary import SPECIFICITIES
from carina.evaluate.values import (
    CaseAgreement,
    CaseClassification,
    ClassificationSummary,
    DetectionSummary,
    Evaluation,
    ReportPicture,
    SegmentationSummary,
    Split,
    Spread,
)
from carina.measure.calibration import HIGHEST, LOWEST
from carina.report import layout as page
from carina.report.fonts import SANS

REPORT = "report.pdf"

MOST_ROWS = 200
"""More cases than these are in the table file only."""

HEAD_ROOM = 40 * mm
"""A table's heading stands on a page only where some rows fit below it."""

FIGURES = {
    "dice": "Dice",
    "surface_dice": "Surface Dice, 2 mm",
    "hd95_mm": "HD95, mm",
    "truth_ml": "True volume, ml",
    "found_ml": "Volume found, ml",
    "volume_error_ml": "Volume error, ml",
    "volume_error_percent": "Volume error, %",
}

CAUTIONS = (
    "The figures hold for these cases. Other scanners, hospitals and patients can give others.",
    "Intervals take each case as a patient of its own; several scans of one patient make them too narrow.",
)

SEGMENTATION_CAUTIONS = (
    "Two empty masks agree fully; where one is empty, Dice and surface Dice are 0 and HD95 is infinite. Infinite "
    "figures are counted in the table and left out of means.",
)

CLASSIFICATION_CAUTIONS = (
    "Thresholds were chosen, and the temperature fitted, on these very cases. Figures after scaling are cross-fitted.",
    "An interval without width says that there are too few cases, not that the figure is sure.",
)


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write ``report.pdf`` into ``folder``.

    Raises:
        BadConfig: the folder can't be written, or matplotlib is not installed.
    """
    file = folder / REPORT
    pdf = report_pdf(evaluation)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pdf)
    except OSError as error:
        raise BadConfig("output.unwritable", f"{file}: can't be written ({error.strerror}).") from error
    return file


def report_pdf(evaluation: Evaluation) -> bytes:
    """The report as A4 pages.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    title = f"Evaluation of {evaluation.subject.bundle.name}"
    story = _opening(title, evaluation)
    cautions: tuple[str, ...] = CAUTIONS
    if evaluation.segmentation is not None:
        segmented = [case for case in evaluation.cases if isinstance(case, CaseAgreement)]
        story += _segmentation(segmented, evaluation.segmentation)
        cautions = SEGMENTATION_CAUTIONS + CAUTIONS
    if evaluation.classification is not None:
        classified = [case for case in evaluation.cases if isinstance(case, CaseClassification)]
        story += _classification(classified, evaluation.classification)
        cautions = CLASSIFICATION_CAUTIONS + CAUTIONS
    story += _failed(evaluation)
    story += page.section("What to be careful about", page.bullets(cautions))
    for number, (heading, pictures) in enumerate(evaluation.worst):
        story.append(_shown(heading, pictures, evaluation, is_first=number == 0))
    story += _case_table(evaluation)
    return page.build(story, title, f"Bundle {evaluation.subject.bundle.made_by}")


def _opening(title: str, evaluation: Evaluation) -> list[Any]:
    subject = evaluation.subject
    failed = len(evaluation.failures)
    pairs = [
        ("Model", f"{subject.bundle.title}"),
        ("Bundle", f"{subject.bundle.name} {subject.bundle.version}"),
        ("SHA-256", f"{subject.bundle.sha256[:16]}\u2026"),
        ("Runtime", subject.runtime),
        ("Data list", f"{subject.data.name}, {subject.split.value}"),
        ("Cases", f"{len(evaluation.cases)} measured, {failed} failed"),
        ("Measured", subject.when.strftime("%Y-%m-%d %H:%M")),
        ("Software", f"Carina {__version__}"),
    ]
    story = [page.paragraph(title, page.TITLE), Spacer(1, 6), page.facts_block(pairs)]
    if subject.split is not Split.VALIDATION:
        story.append(page.notice("These cases are not the validation part alone: a network may have learnt from them."))
    if failed:
        story.append(page.notice(f"{_counted(failed, 'case')} could not be measured and in no figure; see below."))
    return story


def _segmentation(cases: Sequence[CaseAgreement], summary: SegmentationSummary) -> list[Any]:
    first = {one.figure: one for one in summary.spreads}
    lines = [f"mean Dice over {_counted(len(cases), 'case')}"]
    lines.append(f"mean surface Dice at 2 mm {_number(first['surface_dice'].mean)}; HD95 {_hd95(first['hd95_mm'])}")
    story: list[Any] = [Spacer(1, 8), page.headline(_number(first["dice"].mean), lines), Spacer(1, 4)]
    story += page.section("Over all cases", [_spreads(summary.spreads)])
    if summary.detection is not None:
        story += page.section("Lesion by lesion", [page.paragraph(line) for line in _lesions(summary.detection)])
    return story + _plots(segmentation_plots(cases, summary))


def _hd95(found: Spread) -> str:
    return f"{_number(found.median, 1)} mm (median)"


def _spreads(spreads: Sequence[Spread]) -> Any:
    names = ("Figure", "Mean", "SD", "Median", "Lowest", "Highest", "Cases", "Infinite")
    head = [page.paragraph(name, page.SMALL_RIGHT if place else page.SMALL) for place, name in enumerate(names)]
    rows = []
    for one in spreads:
        digits = 3 if "dice" in one.figure else 1
        values = [_number(value, digits) for value in (one.mean, one.sd, one.median, one.min, one.max)]
        values += [str(one.cases), str(one.infinite or "\u2013")]
        rows.append([page.paragraph(FIGURES[one.figure]), *(page.paragraph(value, page.NUMBER) for value in values)])
    return page.number_table(head, rows, [45 * mm, *[18.5 * mm] * 7], [0])


def _lesions(found: DetectionSummary) -> list[str]:
    lines = []
    if found.sensitivity is None:
        lines.append("The cases hold no lesion of at least 0.1 ml.")
    else:
        lines.append(
            f"{found.found} of {found.lesions} lesions of at least 0.1 ml were found: "
            f"sensitivity {found.sensitivity:.3f} (95 % interval {_number(found.low)} to {_number(found.high)})."
        )
    rate = found.false_positives_per_scan
    lines.append(f"{_counted(found.false_positives, 'false positive')}, {rate:.2f} per scan.")
    if found.curve is not None:
        score = found.curve.score
        lines.append(f"Free-response score (mean sensitivity at 1/8 to 8 false positives per scan): {score:.3f}.")
    return lines


def _classification(cases: Sequence[CaseClassification], summary: ClassificationSummary) -> list[Any]:
    counts = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    told = summary.discrimination
    if told is None:
        story: list[Any] = [page.notice(f"{summary.not_computed} ({counts})")]
    else:
        area = told.area
        lines = [
            f"area under the ROC curve for {summary.positive}",
            f"95 % interval {area.low:.3f} to {area.high:.3f} (DeLong); {counts}",
        ]
        story = [Spacer(1, 8), page.headline(f"{area.auc:.3f}", lines), Spacer(1, 4)]
    story += page.section("Over all cases", [_figure_table(_classification_figures(summary))])
    return story + _plots(classification_plots(cases, summary))


def _classification_figures(summary: ClassificationSummary) -> list[tuple[str, str, str]]:
    figures = [("Accuracy (most probable class)", _number(summary.accuracy), "")]
    told, found = summary.discrimination, summary.calibration
    if told is not None:
        figures.append(("Sensitivity at probability 0.5", _number(told.sensitivity), ""))
        figures.append(("Specificity at probability 0.5", _number(told.specificity), ""))
        for wanted, point in zip(SPECIFICITIES, told.points, strict=True):
            at = "nothing called positive" if math.isinf(point.threshold) else f"probability {point.threshold:.3f}"
            interval = f"{_number(point.sensitivity_low)} to {_number(point.sensitivity_high)}; {at}"
            figures.append((f"Sensitivity at specificity {wanted:.0%}", _number(point.sensitivity), interval))
    figures.append(("Expected calibration error", _number(found.ece_before), f"scaled: {_number(found.ece_after)}"))
    figures.append(("Negative log likelihood", _number(found.nll_before), f"scaled: {_number(found.nll_after)}"))
    figures.append(("Temperature", _number(found.temperature, 2), _temperature_note(found.temperature)))
    return figures


def _temperature_note(temperature: float) -> str:
    if temperature < LOWEST * 1.01 or temperature > HIGHEST * 0.99:
        return "at the end of its range: these cases can't tell it"
    return "above 1: probabilities are too sure" if temperature > 1 else "below 1: probabilities are not sure enough"


def _figure_table(figures: Sequence[tuple[str, str, str]]) -> Any:
    head = [page.paragraph("Figure", page.SMALL), page.paragraph("Value", page.SMALL_RIGHT)]
    head.append(page.paragraph("95 % interval and notes", page.SMALL_INDENTED))
    rows = [
        [page.paragraph(name), page.paragraph(value, page.NUMBER), page.paragraph(note, page.SMALL_INDENTED)]
        for name, value, note in figures
    ]
    return page.number_table(head, rows, [70 * mm, 22 * mm, 82 * mm], [0])


def _plots(plots: Sequence[ReportPicture]) -> list[Any]:
    sheet = page.picture_sheet([(one.image, one.size, one.caption) for one in plots], across=len(plots))
    return [KeepTogether([page.paragraph("Plots", page.HEADING), sheet])]


def _failed(evaluation: Evaluation) -> list[Any]:
    return page.section(
        "Failed", page.bullets([f"{one.case}: {one.reason} [{one.code}]" for one in evaluation.failures])
    )


def _shown(heading: str, pictures: Sequence[ReportPicture], evaluation: Evaluation, *, is_first: bool) -> Any:
    """One case's slices under its name; the first with the section's heading."""
    sheet = page.picture_sheet([(one.image, one.size, one.caption) for one in pictures])
    top = [page.paragraph("The worst cases", page.HEADING), _legend(evaluation)] if is_first else []
    return KeepTogether([*top, Spacer(1, 7), page.paragraph(heading, page.STRONG), Spacer(1, 3), sheet])


def _legend(evaluation: Evaluation) -> Any:
    entries = [(page.LUNG_COLOUR, "truth"), (page.LESION_COLOUR, "result")]
    if evaluation.classification is not None:
        entries = [(page.LUNG_COLOUR, "lung")]
    drawing, x = page.sketch(page.WIDTH, 10), 0.0
    for colour, word in entries:
        drawing.add(Line(x, 4, x + 14, 4, strokeColor=colour, strokeWidth=2))
        drawing.add(String(x + 18, 1, word, fontName=SANS, fontSize=7.5, fillColor=page.INK))
        x += 50
    note = "\u20131350 to 150 HU; seen from the feet: the patient's right (R) is on the left"
    drawing.add(String(x, 1, note, fontName=SANS, fontSize=7.5, fillColor=page.MUTED))
    return drawing


def _case_table(evaluation: Evaluation) -> list[Any]:
    cases = evaluation.cases[:MOST_ROWS]
    if not cases:
        return []
    columns = _columns(evaluation)
    names = list(columns[0])
    width = 19 * mm if evaluation.classification is None else 27 * mm
    widths = [page.WIDTH - width * (len(names) - 1), *[width] * (len(names) - 1)]
    head = [page.paragraph(name, page.SMALL_RIGHT if place else page.SMALL) for place, name in enumerate(names)]
    rows = [
        [page.paragraph(value, page.NUMBER if place else page.BODY) for place, value in enumerate(row.values())]
        for row in columns
    ]
    more = len(evaluation.cases) - len(cases)
    note = [page.paragraph(f"{more} more cases are in the table file.", page.SMALL)] if more else []
    table = page.number_table(head, rows, widths, [0])
    return [CondPageBreak(HEAD_ROOM), page.paragraph("Case by case", page.HEADING), table, *note]


def _columns(evaluation: Evaluation) -> list[dict[str, str]]:
    names = evaluation.subject.bundle.carina.labels
    rows = []
    for case in evaluation.cases[:MOST_ROWS]:
        if isinstance(case, CaseClassification):
            row = {"Case": case.case, "True class": names[case.label]}
            for number, value in enumerate(case.probabilities):
                row[f"P {names[number]}"] = _number(value)
        else:
            row = {
                "Case": case.case,
                "Dice": _number(case.dice),
                "Surface Dice": _number(case.surface_dice),
                "HD95 mm": _number(case.hd95_mm, 1),
                "True ml": _number(case.truth_ml, 1),
                "Found ml": _number(case.found_ml, 1),
            }
            if case.detection is not None:
                row["Lesions"] = f"{case.detection.found} of {len(case.detection.lesions_ml)}"
                row["False"] = str(len(case.detection.false_ml))
        rows.append(row)
    return rows


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "\u2013"
    if math.isinf(value):
        return "infinite"
    return f"{value:.{digits}f}".replace("-", "\u2013")
