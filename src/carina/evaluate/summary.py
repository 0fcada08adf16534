"""From cases to figures over all cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from carina.evaluate.values import (
    Calibration,
    CaseAgreement,
    CaseClassification,
    ClassificationSummary,
    DetectionSummary,
    Discrimination,
    SegmentationSummary,
    spread,
)
from carina.measure.agreement import auc
from carina.measure.calibration import (
    crossfitted,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from carina.measure.detection import free_response
from carina.measure.roc import roc_curve, sensitivity_at_specificity, share_interval

SPECIFICITIES = (0.8, 0.9, 0.95)
"""At these the sensitivity is given."""

SPREAD_OVER = (
    "dice",
    "surface_dice",
    "hd95_mm",
    "truth_ml",
    "found_ml",
    "volume_error_ml",
    "volume_error_percent",
)

NEVER_ZERO = float(np.finfo(np.float64).tiny)
"""Probabilities of 0 become this, so that they have a logarithm."""


def sum_up_segmentation(cases: Sequence[CaseAgreement]) -> SegmentationSummary:
    """Spreads of every figure, and for lesions how many were found."""
    return SegmentationSummary(
        spreads=tuple(spread(name, [getattr(case, name) for case in cases]) for name in SPREAD_OVER),
        detection=_detection(cases),
    )


def _detection(cases: Sequence[CaseAgreement]) -> DetectionSummary | None:
    seen = [case.detection for case in cases if case.detection is not None]
    if not seen:
        return None
    lesions, found = sum(len(one.lesions_ml) for one in seen), sum(one.found for one in seen)
    low, high = share_interval(found / lesions, lesions) if lesions else (None, None)
    false = sum(len(one.false_ml) for one in seen)
    return DetectionSummary(
        lesions=lesions,
        found=found,
        sensitivity=found / lesions if lesions else None,
        low=low,
        high=high,
        false_positives=false,
        false_positives_per_scan=false / len(seen),
        curve=free_response(seen),
    )


def sum_up_classification(cases: Sequence[CaseClassification], names: Mapping[int, str]) -> ClassificationSummary:
    """Discrimination and calibration of the class with the highest number against all others."""
    probabilities = np.array([case.probabilities for case in cases])
    labels = np.array([case.label for case in cases])
    last = max(names)
    scores, positive = probabilities[:, last], labels == last
    one_sided = positive.all() or not positive.any()
    return ClassificationSummary(
        positive=names[last],
        counts={name: int(np.count_nonzero(labels == number)) for number, name in names.items()},
        accuracy=float((probabilities.argmax(axis=1) == labels).mean()),
        discrimination=None if one_sided else _discrimination(scores, positive),
        calibration=_calibration(probabilities, labels, last),
        not_computed="All cases are of one side, so there is no ROC curve and no AUC." if one_sided else "",
    )


def _discrimination(scores: np.ndarray, positive: np.ndarray) -> Discrimination:
    called = scores > 0.5
    return Discrimination(
        area=auc(scores, positive),
        curve=roc_curve(scores, positive),
        points=tuple(sensitivity_at_specificity(scores, positive, specificity=wanted) for wanted in SPECIFICITIES),
        sensitivity=float(called[positive].mean()),
        specificity=float((~called[~positive]).mean()),
    )


def _calibration(probabilities: np.ndarray, labels: np.ndarray, last: int) -> Calibration:
    """Logarithms of probabilities are logits as good as the network's: softmax takes no notice of a constant."""
    logits = np.log(np.maximum(probabilities, NEVER_ZERO))
    after = crossfitted(logits, labels)
    positive = labels == last
    return Calibration(
        temperature=fit_temperature(logits, labels),
        before=reliability(probabilities[:, last], positive),
        after=reliability(after[:, last], positive),
        ece_before=expected_calibration_error(probabilities[:, last], positive),
        ece_after=expected_calibration_error(after[:, last], positive),
        nll_before=negative_log_likelihood(logits, labels),
        nll_after=negative_log_likelihood(np.log(np.maximum(after, NEVER_ZERO)), labels),
    )
