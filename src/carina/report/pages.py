"""The two reports: the classification, and the lesion to lung volume ratio; one page each where that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import Spacer

from carina.dicom.objects import Producer
from carina.measure.findings import Classification, KeySlice, RatioFindings, RegionFindings, in_class_order
from carina.measure.texts import ml_text, percent_text
from carina.models.validation import Validation
from carina.report import layout as page
from carina.report.facts import ReportFacts
from carina.report.fonts import identifiable
from carina.report.numbers import MINUS, NOT_TOLD, hu_text, in_report_order, region_name, without_thirds
from carina.report.pictures import key_slice_pictures
from carina.report.saliency import saliency_pictures, saliency_words
from carina.report.whereabouts import whereabouts
from carina.report.worth import NO_NUMBER, probability_worth, ratio_worth

SHOWN_HASH = 16

MODEL_NOT_KNOWN = "Model not known"

NOTHING_TO_MEASURE = "No lung was found in this series, so there is nothing to measure."


def classification_pdf(
    classification: Classification, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None
) -> bytes:
    """The COVID-19 classification as A4 pages in PDF; the same values give the same bytes.

    ``key_slices`` default to the classification's own; where there is a saliency, its slices are shown instead.
    Where there is no probability, the page says why.
    """
    slices = classification.key_slices if key_slices is None else key_slices
    saliency = classification.saliency
    if classification.probabilities:
        ranked = list(in_class_order(classification.probabilities).items())
        result = [page.paragraph("Probability given by the network", page.FIRST_HEADING), page.probability_bars(ranked)]
        worth = page.panel("What this number is worth", probability_worth(_validations(facts)[0]))
    else:
        why = classification.not_computed or "The classification was not computed."
        result = [page.paragraph("No probability", page.FIRST_HEADING), page.paragraph(why, page.LEAD)]
        worth = page.panel("How to read this", {"": NO_NUMBER})
    result += [*saliency_words(saliency), *_warnings(facts, classification.warnings), *made_by(facts)]
    story = [*opening("COVID-19 classification", facts), page.beside(result, worth)]
    story += saliency_pictures(saliency, facts) or key_slice_pictures("Slices of this scan", slices, facts)
    return page.build(story, "COVID-19 classification", f"Series {facts.series_uid}")


def ratio_pdf(ratio: RatioFindings, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None) -> bytes:
    """The lesion to lung volume ratio as A4 pages in PDF; the same values give the same bytes.

    ``key_slices`` default to the findings' own. Nothing found is said in words, with the lung's numbers.
    """
    slices = ratio.key_slices if key_slices is None else key_slices
    with_lesion = [key for key in slices if key.lesion.any()]
    if ratio.regions[0].lung_ml:
        result = [_ratio_headline(ratio), Spacer(1, 6), _region_table(ratio.regions)]
        worth = page.panel("What this number is worth", ratio_worth(_validations(facts)))
    else:
        result = [page.paragraph("No ratio", page.FIRST_HEADING), page.paragraph(NOTHING_TO_MEASURE, page.LEAD)]
        worth = page.panel("How to read this", {"": NO_NUMBER})
    result += [*_warnings(facts, ratio.warnings), *made_by(facts)]
    story = [*opening("Lesion to lung volume ratio", facts), page.beside(result, worth)]
    if with_lesion:
        story += key_slice_pictures("Slices with lesion, spread over the lungs", with_lesion, facts)
    else:
        story += key_slice_pictures("Slices through the lungs: no lesion was marked", slices, facts)
    return page.build(story, "Lesion to lung volume ratio", f"Series {facts.series_uid}")


def opening(title: str, facts: ReportFacts) -> list[Any]:
    """A report's title, and what it says of its study and series."""
    grid = facts.grid
    kernel = f"kernel {facts.kernel}" if facts.kernel else ""
    series = " \u00b7 ".join(text for text in (facts.series_number, facts.series_description, kernel) if text)
    voxels = ""
    if grid is not None:
        z, y, x = grid.spacing_mm
        voxels = f"{grid.shape[0]} slices, {x:.2f} \u00d7 {y:.2f} \u00d7 {z:.2f} mm"
    pairs = [
        ("Patient ID", identifiable(facts.patient_id) or "\u2013"),
        ("Accession", identifiable(facts.accession_number) or "\u2013"),
        ("Study date", facts.study_date or "\u2013"),
        ("Series", series or "\u2013"),
        ("Volume", voxels or "\u2013"),
        ("Analysed", facts.made_at.strftime("%Y-%m-%d %H:%M")),
    ]
    return [page.paragraph(title, page.TITLE), Spacer(1, 4), page.facts_block(pairs), Spacer(1, 9)]


def _ratio_headline(ratio: RatioFindings) -> Any:
    whole = ratio.regions[0]
    if not whole.lesion_ml:
        return page.headline(
            "0 %",
            [
                f"No lesion was marked in {ml_text(whole.lung_ml)} ml of lung.",
                "This is a result of the network and does not exclude disease.",
            ],
            page.MAIN,
        )
    hu = "" if whole.lesion_mean_hu is None else f", mean {whole.lesion_mean_hu:.0f} HU".replace("-", MINUS)
    many = "1 lesion" if ratio.lesion_count == 1 else f"{ratio.lesion_count} separate lesions"
    return page.headline(
        f"{percent_text(whole.ratio_percent)} %",
        [
            "of the lung volume is marked as lesion",
            f"{ml_text(whole.lesion_ml)} ml of {ml_text(whole.lung_ml)} ml; {many}{hu}",
            *filter(None, [whereabouts(ratio.regions, ratio.lesion_count)]),
        ],
        page.MAIN,
    )


def _region_table(regions: Sequence[RegionFindings]) -> Any:
    """Each lung with its thirds below it; the HU columns only where a CT was given."""
    ordered = in_report_order(regions)
    with_hu = any(region.lung_mean_hu is not None for region in regions)
    top = _scale_end(max(region.ratio_percent for region in regions))
    columns = _COLUMNS if with_hu else _COLUMNS[:5]
    heads = [page.paragraph(name.format(top), style) for name, style, _ in columns]
    untold = without_thirds(regions)
    rows: list[list[Any]] = []
    rules: list[int] = []
    for region in ordered:
        if len(region.region.split()) < 3:
            rules.append(len(rows))
        rows.append(_region_row(region, top)[: len(columns)])
        if region.region in untold:
            words = page.paragraph("Thirds", page.INDENTED), page.paragraph(NOT_TOLD, page.NUMBER)
            rows.append([*words, *[""] * (len(columns) - len(words))])
    return page.number_table(heads, rows, [width for _, _, width in columns], rules)


_COLUMNS = (
    ("Region", page.SMALL, 21 * mm),
    ("Lung ml", page.SMALL_RIGHT, 12 * mm),
    ("Lesion ml", page.SMALL_RIGHT, 14 * mm),
    ("Ratio %", page.SMALL_RIGHT, 12 * mm),
    ("0 to {} %", page.SMALL_INDENTED, 15 * mm),
    ("Lung HU", page.SMALL_RIGHT, 12 * mm),
    ("Lesion HU", page.SMALL_RIGHT, 14 * mm),
)


def _region_row(region: RegionFindings, top: int) -> list[Any]:
    name, is_part = region_name(region.region)
    return [
        page.paragraph(name, page.INDENTED if is_part else page.STRONG),
        page.paragraph(ml_text(region.lung_ml), page.NUMBER),
        page.paragraph(ml_text(region.lesion_ml), page.NUMBER),
        page.paragraph(percent_text(region.ratio_percent), page.NUMBER),
        page.bar(region.ratio_percent / top, 12 * mm, 3 * mm),
        page.paragraph(hu_text(region.lung_mean_hu), page.NUMBER),
        page.paragraph(hu_text(region.lesion_mean_hu), page.NUMBER),
    ]


def _scale_end(percent: float) -> int:
    return next(end for end in (5, 10, 25, 50, 100) if percent <= end or end == 100)


def _validations(facts: ReportFacts) -> list[tuple[str, Validation | None]]:
    """What each model says of itself, by name."""
    names = [model.model_name if model.bundle_sha256 else MODEL_NOT_KNOWN for model in facts.models] or [
        MODEL_NOT_KNOWN
    ]
    return [(name, facts.validations.get(name)) for name in names]


def _warnings(facts: ReportFacts, warnings: Sequence[str]) -> list[Any]:
    told = list(dict.fromkeys((*facts.warnings, *warnings)))
    return [page.paragraph("Warnings", page.HEADING), *page.bullets(told, page.FINE_BULLET)] if told else []


def made_by(facts: ReportFacts) -> list[Any]:
    """Software, model, version and hash of what made the result; the definition's own name for it, if it has one."""
    made = [f"Carina {facts.software_version}", *(_model(one) for one in facts.models)]
    lines = [*made, facts.called] if facts.called else made
    return [page.paragraph("Made by", page.HEADING), *(page.paragraph(line, page.SMALL) for line in lines)]


def _model(model: Producer) -> str:
    if not model.bundle_sha256:
        return "Which model made the result is not known."
    creator, digest = model.model_creator or "unknown", model.bundle_sha256[:SHOWN_HASH]
    return f"{model.model_name} {model.model_version} by {creator}, bundle sha256 {digest}\u2026"
