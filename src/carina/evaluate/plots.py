"""The report's plots, drawn by matplotlib into PNG; its import waits until a plot is wanted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from carina.errors import BadConfig
from carina.evaluate.values import (
    CaseAgreement,
    CaseClassification,
    ClassificationSummary,
    Discrimination,
    ReportPicture,
    SegmentationSummary,
)
from carina.measure.calibration import ReliabilityBin

_BLUE, _ORANGE, _GREEN, _INK, _MUTED, _RULE = "#0072b2", "#e69f00", "#009e73", "#1f2328", "#656d76", "#d0d7de"
"""Colours of the Okabe-Ito palette, and the report's greys."""

INCHES = (2.7, 2.35)
DPI = 220
LIMITS = 1.96
"""Standard deviations of the limits of agreement (Bland and Altman 1986)."""


def segmentation_plots(cases: Sequence[CaseAgreement], summary: SegmentationSummary) -> list[ReportPicture]:
    """How Dice and surface Dice are spread, how volumes agree, and for lesions the free-response curve.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    plots = [_distribution(cases), _volumes(cases)]
    if summary.detection is not None and summary.detection.curve is not None:
        curve = summary.detection.curve
        figure, axes = _axes("Free response", "false positives per scan", "sensitivity")
        axes.step(curve.false_positives_per_scan, curve.sensitivity, where="post", color=_BLUE, linewidth=1.6)
        axes.plot(curve.false_positives_per_scan, curve.sensitivity, "o", color=_BLUE, markersize=3)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(left=0)
        plots.append(_drawn(figure, "Found components counted from a volume that falls along the curve."))
    return plots


def classification_plots(cases: Sequence[CaseClassification], summary: ClassificationSummary) -> list[ReportPicture]:
    """The ROC curve, reliability before and after temperature scaling, and the probabilities of either side.

    Raises:
        BadConfig: matplotlib is not installed.
    """
    plots = [] if summary.discrimination is None else [_roc(summary.discrimination)]
    return [*plots, _reliability(summary), _probabilities(cases, summary)]


def _distribution(cases: Sequence[CaseAgreement]) -> ReportPicture:
    figure, axes = _axes("Agreement of each case", "", "0 to 1")
    columns = [[case.dice for case in cases], [case.surface_dice for case in cases]]
    axes.boxplot(
        columns, widths=0.5, showfliers=False, medianprops={"color": _INK}, boxprops={"color": _MUTED},
        whiskerprops={"color": _MUTED}, capprops={"color": _MUTED},
    )  # fmt: skip
    for place, (values, colour) in enumerate(zip(columns, (_BLUE, _ORANGE), strict=True), start=1):
        axes.plot(place + _aside(len(values)), values, "o", color=colour, markersize=3.5, alpha=0.75)
    axes.set_xticks([1, 2], ["Dice", "surface Dice"])
    low = min(min(values) for values in columns)
    axes.set_ylim(max(-0.02, low - 0.1), 1.02)
    return _drawn(figure, "Surface Dice at 2 mm. Boxes: quartiles and median; whiskers: 1.5 times their distance.")


def _volumes(cases: Sequence[CaseAgreement]) -> ReportPicture:
    figure, axes = _axes("Agreement of volumes", "mean of result and truth, ml", "result minus truth, ml")
    mean = np.array([(case.found_ml + case.truth_ml) / 2 for case in cases])
    error = np.array([case.volume_error_ml for case in cases])
    axes.axhline(0, color=_RULE, linewidth=0.8)
    axes.axhline(error.mean(), color=_BLUE, linewidth=1.2)
    if len(cases) > 1:
        for sign in (-1, 1):
            axes.axhline(error.mean() + sign * LIMITS * error.std(ddof=1), color=_BLUE, linewidth=0.9, linestyle="--")
    axes.plot(mean, error, "o", color=_BLUE, markersize=3.5, alpha=0.75)
    return _drawn(figure, "Bland and Altman: mean difference and, dashed, limits of agreement (1.96 sd).")


def _roc(found: Discrimination) -> ReportPicture:
    figure, axes = _axes("ROC curve", "1 \u2013 specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_RULE, linewidth=0.8)
    axes.plot(1 - found.curve.specificity, found.curve.sensitivity, color=_BLUE, linewidth=1.6)
    for point in found.points:
        axes.errorbar(
            1 - point.specificity, point.sensitivity, color=_ORANGE, marker="o", markersize=4, capsize=2, linewidth=1,
            yerr=[[point.sensitivity - point.sensitivity_low], [point.sensitivity_high - point.sensitivity]],
        )  # fmt: skip
    area = found.area
    text = f"AUC {area.auc:.3f}\n95 % {area.low:.3f} to {area.high:.3f}"
    axes.text(0.97, 0.05, text, ha="right", va="bottom", fontsize=8, color=_INK)
    _unit_square(axes)
    return _drawn(figure, "Dots: the sensitivities of the table, with their 95 % intervals.")


def _reliability(summary: ClassificationSummary) -> ReportPicture:
    figure, axes = _axes("Reliability", "mean probability given", f"share that is {summary.positive}")
    axes.plot([0, 1], [0, 1], color=_RULE, linewidth=0.8)
    found = summary.calibration
    for bins, colour, words in (
        (found.before, _BLUE, f"as given, error {found.ece_before:.3f}"),
        (found.after, _ORANGE, f"scaled, error {found.ece_after:.3f}"),
    ):
        _curve(axes, bins, colour, words)
    axes.legend(fontsize=7, frameon=False, loc="best", handlelength=1.2)
    _unit_square(axes)
    return _drawn(figure, "Larger dots stand for more cases. Scaled: by the temperature of the other cases.")


def _curve(axes: Any, bins: Sequence[ReliabilityBin], colour: str, words: str) -> None:
    x, y = [one.predicted for one in bins], [one.observed for one in bins]
    most = max(one.count for one in bins)
    axes.plot(x, y, color=colour, linewidth=1.2, label=words)
    axes.scatter(x, y, color=colour, s=[6 + 34 * one.count / most for one in bins], alpha=0.8, linewidths=0)


def _probabilities(cases: Sequence[CaseClassification], summary: ClassificationSummary) -> ReportPicture:
    figure, axes = _axes("Probability of each case", "", f"probability of {summary.positive}")
    last = len(summary.counts) - 1
    for place, colour in ((0, _BLUE), (1, _ORANGE)):
        values = [case.probabilities[last] for case in cases if (case.label == last) == bool(place)]
        axes.plot(place + _aside(len(values)), values, "o", color=colour, markersize=3.5, alpha=0.75)
    axes.axhline(0.5, color=_RULE, linewidth=0.8)
    other = next(iter(summary.counts)) if last == 1 else "others"
    axes.set_xticks([0, 1], [other, summary.positive])
    axes.set_xlim(-0.6, 1.6)
    axes.set_ylim(-0.02, 1.02)
    return _drawn(figure, "By true class.")


def _aside(count: int) -> Any:
    """Places beside each other, so that dots of like height are told apart; always the same."""
    return (np.arange(count) * 0.618 % 1 - 0.5) * 0.3


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadConfig(
            "evaluate.not-installed",
            "The report's plots need matplotlib, which is not installed: pip install 'carina-ct[train]'.",
        ) from error
    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, color=_INK, loc="left", fontweight="bold")
    axes.set_xlabel(x, fontsize=8, color=_MUTED)
    axes.set_ylabel(y, fontsize=8, color=_MUTED)
    axes.tick_params(labelsize=7.5, colors=_MUTED)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_RULE)
    return figure, axes


def _unit_square(axes: Any) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def _drawn(figure: Any, caption: str) -> ReportPicture:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    width, height = (round(side * DPI) for side in INCHES)
    return ReportPicture(image=out.getvalue(), size=(width, height), caption=caption)
