"""The two reports: the classification, and the lesion to lung volume ratio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reportlab.lib.units import mm
from reportlab.platypus import Spacer

from carina.measure.findings import Classification, KeySlice, RatioFindings, RegionFindings
from carina.report import layout as page
from carina.report.facts import ReportFacts
from carina.report.pictures import MINUS, key_slice_pictures
from carina.report.saliency import saliency_section

SHOWN_HASH = 16

RATIO_CAUTIONS = (
    "Lesions are what a network marked. Vessels, collapsed lung, breathing motion and other pneumonias can be marked "
    "too, and faint or small lesions can be missed.",
    "The ratio depends on both outlines: dense tissue at the pleura that the lung outline leaves out changes it.",
    "Read the images themselves before you rely on a number.",
)

CLASS_CAUTIONS = (
    "The number is a network's output for this one scan. It is not the chance that this patient has COVID-19, which "
    "also depends on how common the disease is, on symptoms and on tests.",
    "Other pneumonias look alike on CT, and scans of other hospitals and scanners can be judged worse.",
)


def classification_pdf(
    classification: Classification, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None
) -> bytes:
    """The COVID-19 classification as A4 pages in PDF; the same values give the same bytes.

    ``key_slices`` default to the classification's own. Where there is no probability, the page says why.
    """
    slices = classification.key_slices if key_slices is None else key_slices
    story = _opening("COVID-19 classification", facts)
    if classification.probabilities:
        ranked = sorted(classification.probabilities.items(), key=lambda item: (-item[1], item[0]))
        story += [page.paragraph("Probability given by the network", page.HEADING), page.probability_bars(ranked)]
    else:
        why = classification.not_computed or "The classification was not computed."
        story += page.section("No probability", [page.paragraph(why, page.LEAD)])
    if facts.demonstration:
        story += [page.notice(facts.demonstration)]
    story += key_slice_pictures("Slices of this scan", slices, facts)
    story += saliency_section(classification.saliency, facts)
    story += _closing(facts, classification.warnings, CLASS_CAUTIONS)
    return page.build(story, "COVID-19 classification", f"Series {facts.series_uid}")


def ratio_pdf(ratio: RatioFindings, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None) -> bytes:
    """The lesion to lung volume ratio as A4 pages in PDF; the same values give the same bytes.

    ``key_slices`` default to the findings' own. Nothing found is said in words, with the lung's numbers.
    """
    slices = ratio.key_slices if key_slices is None else key_slices
    story = _opening("Lesion to lung volume ratio", facts)
    story += [Spacer(1, 8), _ratio_headline(ratio), Spacer(1, 4)]
    if facts.demonstration:
        story += [page.notice(facts.demonstration)]
    story += page.section("By region", [_region_table(ratio.regions)])
    title = "Slices with the largest lesion area" if ratio.regions[0].lesion_ml else "Slices through the lungs"
    story += _closing(facts, ratio.warnings, RATIO_CAUTIONS)
    story += key_slice_pictures(title, slices, facts, across=2)
    return page.build(story, "Lesion to lung volume ratio", f"Series {facts.series_uid}")


def _opening(title: str, facts: ReportFacts) -> list[Any]:
    grid = facts.grid
    series = " \u00b7 ".join(text for text in (facts.series_number, facts.series_description, facts.kernel) if text)
    voxels = ""
    if grid is not None:
        z, y, x = grid.spacing_mm
        voxels = f"{grid.shape[0]} slices, {x:.2f} \u00d7 {y:.2f} \u00d7 {z:.2f} mm"
    pairs = [
        ("Patient ID", facts.patient_id or "\u2013"),
        ("Accession", facts.accession_number or "\u2013"),
        ("Study date", facts.study_date or "\u2013"),
        ("Series", series or "\u2013"),
        ("Volume", voxels or "\u2013"),
        ("Analysed", facts.made_at.strftime("%Y-%m-%d %H:%M")),
        ("Software", f"Carina {facts.software_version}"),
        ("Models", ", ".join(f"{model.model_name} {model.model_version}" for model in facts.models) or "\u2013"),
    ]
    return [page.paragraph(title, page.TITLE), Spacer(1, 6), page.facts_block(pairs)]


def _ratio_headline(ratio: RatioFindings) -> Any:
    whole = ratio.regions[0]
    if not whole.lung_ml:
        return page.headline("\u2013", ["No lung was found in this series.", "There is nothing to measure."])
    if not whole.lesion_ml:
        return page.headline(
            "0 %",
            [
                f"No lesion was marked in {_ml(whole.lung_ml)} ml of lung.",
                "This is a result of the network and does not exclude disease.",
            ],
        )
    hu = "" if whole.lesion_mean_hu is None else f", mean {whole.lesion_mean_hu:.0f} HU".replace("-", MINUS)
    many = "1 lesion" if ratio.lesion_count == 1 else f"{ratio.lesion_count} separate lesions"
    return page.headline(
        f"{_percent(whole.ratio_percent)} %",
        [
            "of the lung volume is marked as lesion",
            f"{_ml(whole.lesion_ml)} ml of {_ml(whole.lung_ml)} ml; {many}{hu}",
        ],
    )


def _region_table(regions: Sequence[RegionFindings]) -> Any:
    """Each lung with its thirds below it; the HU columns only where a CT was given."""
    ordered = sorted(regions, key=lambda region: _SIDES.index(region.region.split()[0]))
    with_hu = any(region.lung_mean_hu is not None for region in regions)
    top = _scale_end(max(region.ratio_percent for region in regions))
    columns = _COLUMNS if with_hu else _COLUMNS[:5]
    heads = [page.paragraph(name.format(top), style) for name, style, _ in columns]
    rules = [0, *(k for k, region in enumerate(ordered) if k and len(region.region.split()) == 2)]
    rows = [_region_row(region, top)[: len(columns)] for region in ordered]
    return page.number_table(heads, rows, [width for _, _, width in columns], rules)


_SIDES = ("lungs", "right", "left")

_COLUMNS = (
    ("Region", page.SMALL, 36 * mm),
    ("Lung ml", page.SMALL_RIGHT, 20 * mm),
    ("Lesion ml", page.SMALL_RIGHT, 20 * mm),
    ("Ratio %", page.SMALL_RIGHT, 18 * mm),
    ("0 to {} %", page.SMALL_INDENTED, 44 * mm),
    ("Lung HU", page.SMALL_RIGHT, 18 * mm),
    ("Lesion HU", page.SMALL_RIGHT, 18 * mm),
)


def _region_row(region: RegionFindings, top: int) -> list[Any]:
    words = region.region.split()
    name = " ".join(words[2:] or words).capitalize()
    return [
        page.paragraph(name, page.INDENTED if len(words) > 2 else page.STRONG),
        page.paragraph(_ml(region.lung_ml), page.NUMBER),
        page.paragraph(_ml(region.lesion_ml), page.NUMBER),
        page.paragraph(_percent(region.ratio_percent), page.NUMBER),
        page.bar(region.ratio_percent / top, 34 * mm, 6 * mm),
        page.paragraph(_hu(region.lung_mean_hu), page.NUMBER),
        page.paragraph(_hu(region.lesion_mean_hu), page.NUMBER),
    ]


def _scale_end(percent: float) -> int:
    return next(end for end in (5, 10, 25, 50, 100) if percent <= end or end == 100)


def _ml(value: float) -> str:
    """Whole ml from 100 on, one decimal below, and a sign that there is something below 0.05 ml."""
    if 0 < value < 0.05:
        return "< 0.1"
    return f"{value:,.0f}".replace(",", "\u00a0") if value >= 100 or not value else f"{value:.1f}"


def _percent(value: float) -> str:
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value else "0"


def _hu(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.0f}".replace("-", MINUS)


def _closing(facts: ReportFacts, warnings: Sequence[str], cautions: Sequence[str]) -> list[Any]:
    told = list(dict.fromkeys((*facts.warnings, *warnings)))
    made = [
        f"{model.model_name} {model.model_version} by {model.model_creator or 'unknown'}, bundle sha256 "
        f"{model.bundle_sha256[:SHOWN_HASH] or 'unknown'}\u2026"
        for model in facts.models
    ]
    return [
        *page.section("Warnings", page.bullets(told)),
        *page.section("What to be careful about", page.bullets((*facts.cautions, *cautions))),
        *page.section("Made by", [page.paragraph(line, page.SMALL) for line in made]),
    ]
