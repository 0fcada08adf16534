"""What a run found, as texts in the order of the PDF: the same figures, rounded by the same rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carina.api.result import Run
from carina.corrections.decisions import DecisionRecord, ReadersState
from carina.measure.findings import RegionFindings, SaliencyMethod, in_class_order
from carina.measure.texts import ml_text, percent_text
from carina.report.numbers import (
    NOT_TOLD,
    hu_text,
    in_report_order,
    probability_change,
    probability_text,
    region_name,
    without_thirds,
)
from carina.report.whereabouts import whereabouts

NOT_MEASURED = "This run measured no lesion to lung ratio."
NOTHING_MARKED = "No lesion was marked. This is a result of the network and does not exclude disease."


@dataclass(frozen=True, kw_only=True)
class RegionRow:
    """One row of the table of regions; ``is_part`` for the thirds of the lung above."""

    name: str
    is_part: bool
    lung_ml: str
    lesion_ml: str
    percent: str
    lung_hu: str
    lesion_hu: str


@dataclass(frozen=True, kw_only=True)
class FoundTexts:
    """The findings of a run in texts; ``headline`` is the ratio, and ``not_computed`` why there is no probability.

    ``where`` says where many lesions lie. ``limits`` say what the probabilities can't tell.
    """

    headline: str
    sentence: str
    where: str
    regions: tuple[RegionRow, ...]
    probabilities: tuple[tuple[str, str], ...]
    not_computed: str
    limits: tuple[str, ...]
    warnings: tuple[str, ...]


def found_by(run: Run) -> FoundTexts:
    """The findings as the run stored them.

    Raises:
        BadConfig: ``run.damaged``, a file of the run is gone or damaged.
    """
    ratio, classification = run.stored("volume-ratio.json"), run.stored("classification.json")
    regions = [RegionFindings(**region) for region in ratio.get("regions", [])]
    headline, sentence = _headline(regions, ratio.get("lesion_count", 0))
    classes = in_class_order(classification.get("probabilities", {}))
    return FoundTexts(
        headline=headline,
        sentence=sentence,
        where=whereabouts(regions, ratio.get("lesion_count", 0)),
        regions=tuple(_rows(regions)),
        probabilities=tuple((name, probability_text(value)) for name, value in classes.items()),
        not_computed=classification.get("not_computed", "") or ("" if classes else "This run classified nothing."),
        limits=tuple(classification.get("limits", ())),
        warnings=run.warnings,
    )


def readers_words(state: ReadersState) -> str:
    """What readers decided about a run's masks, as a cell of a table: ``lesion corrected; ratio 3.10 %``."""
    decided = state.trouble or ", ".join(map(_decision, state.decisions))
    if state.measured is None or state.measured.reader_ratio_percent is None:
        return decided
    ratio = f"ratio {percent_text(state.measured.reader_ratio_percent)} %"
    return "; ".join((decided, ratio, *(warning.rstrip(".") for warning in state.measured.warnings)))


def _decision(one: DecisionRecord) -> str:
    return f"{one.layer} {one.words}{f' ({one.reason})' if one.reason else ''}"


def saliency_legend(run: Run) -> str:
    """What the colours of the saliency mean, with their numbers; empty where the run has none."""
    found = run.stored("classification.json").get("saliency")
    if not found:
        return ""
    fall, rise = (probability_change(max(value, 0.0)) for value in (found["highest"], -found["lowest"]))
    if found.get("method") == SaliencyMethod.ACTIVATION:
        return (
            f"Orange: the place adds to the log-odds of {found['label']}, at most {fall}; blue: it takes from them, at "
            f"most {rise}. Lesions are left out meanwhile. It does not show where disease is."
        )
    return (
        f"Orange: hiding the place lowers the probability of {found['label']}, at most by {fall}; "
        f"blue: it raises it, at most by {rise}. Lesions are left out meanwhile. It does not show where disease is."
    )


def _headline(regions: list[RegionFindings], lesions: int) -> tuple[str, str]:
    """The ratio of both lungs together, and what it is made of."""
    if not regions:
        return "\u2013", NOT_MEASURED
    whole = regions[0]
    if not whole.lung_ml:
        return "\u2013", "No lung was found in this series, so there is nothing to measure."
    if not whole.lesion_ml:
        return "0 %", f"{NOTHING_MARKED} Lungs: {ml_text(whole.lung_ml)} ml."
    many = "1 lesion" if lesions == 1 else f"{lesions} separate lesions"
    volumes = f"{ml_text(whole.lesion_ml)} ml of {ml_text(whole.lung_ml)} ml"
    sentence = f"of the lung volume is marked as lesion: {volumes}; {many}, mean {hu_text(whole.lesion_mean_hu)} HU"
    return f"{percent_text(whole.ratio_percent)} %", sentence


def _rows(regions: list[RegionFindings]) -> Iterator[RegionRow]:
    """The regions in the report's order; below a lung without thirds, that they are not told."""
    untold = without_thirds(regions)
    for region in in_report_order(regions):
        yield _row(region)
        if region.region in untold:
            yield _NO_THIRDS


_NO_THIRDS = RegionRow(
    name="Thirds", is_part=True, lung_ml=NOT_TOLD, lesion_ml="", percent="", lung_hu="", lesion_hu=""
)


def _row(region: RegionFindings) -> RegionRow:
    name, is_part = region_name(region.region)
    return RegionRow(
        name=name,
        is_part=is_part,
        lung_ml=ml_text(region.lung_ml),
        lesion_ml=ml_text(region.lesion_ml),
        percent=percent_text(region.ratio_percent),
        lung_hu=hu_text(region.lung_mean_hu),
        lesion_hu=hu_text(region.lesion_mean_hu),
    )
