"""The ROC curve, and the sensitivity that goes with a wanted specificity. Pure functions on arrays.

Scores are high where a case is positive; a case is called positive where its score is at or above the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from carina.volume.arrays import Doubles, Flags


@dataclass(frozen=True, kw_only=True, eq=False)
class RocCurve:
    """Points of a ROC curve from (0, 0) to (1, 1): one for each different score, thresholds falling from infinity."""

    thresholds: Doubles
    sensitivity: Doubles
    specificity: Doubles


def roc_curve(scores: npt.ArrayLike, positive: npt.ArrayLike) -> RocCurve:
    """The empirical ROC curve; cases with one score come together.

    Raises:
        ValueError: scores and truth differ in length, or one class is absent.
    """
    values, truth = both_classes(scores, positive)
    thresholds, place = np.unique(values, return_inverse=True)
    cases = np.bincount(place, weights=truth)[::-1].cumsum()
    controls = np.bincount(place, weights=~truth)[::-1].cumsum()
    return RocCurve(
        thresholds=np.append(np.inf, thresholds[::-1]),
        sensitivity=np.append(0.0, cases / cases[-1]),
        specificity=np.append(1.0, 1 - controls / controls[-1]),
    )


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """What a threshold gives: sensitivity with its interval, and the specificity that is reached, all 0 to 1."""

    threshold: float
    sensitivity: float
    sensitivity_low: float
    sensitivity_high: float
    specificity: float
    confidence: float


def sensitivity_at_specificity(
    scores: npt.ArrayLike, positive: npt.ArrayLike, *, specificity: float, confidence: float = 0.95
) -> OperatingPoint:
    """The highest sensitivity at a threshold whose specificity is at least ``specificity`` (0 to 1).

    The interval is Wilson's, over the positive cases (Wilson 1927). The threshold is chosen on the same cases, so that
    the figure is optimistic where they are few. The threshold is infinite (nothing is called positive) where no score
    gives that specificity.

    Raises:
        ValueError: ``roc_curve``'s, or a specificity outside 0 to 1.
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity {specificity} must lie between 0 and 1")
    curve = roc_curve(scores, positive)
    allowed = np.flatnonzero(curve.specificity >= specificity - 1e-12)
    best = int(allowed[curve.sensitivity[allowed].argmax()])
    sensitivity = float(curve.sensitivity[best])
    low, high = share_interval(sensitivity, int(np.count_nonzero(positive)), confidence=confidence)
    return OperatingPoint(
        threshold=float(curve.thresholds[best]),
        sensitivity=sensitivity,
        sensitivity_low=low,
        sensitivity_high=high,
        specificity=float(curve.specificity[best]),
        confidence=confidence,
    )


def share_interval(share: float, count: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's confidence interval of a share (0 to 1) of ``count`` cases."""
    z = float(stats.norm.ppf((1 + confidence) / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    return max(0.0, middle - half), min(1.0, middle + half)


def both_classes(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Doubles, Flags]:
    """Scores and truth as arrays.

    Raises:
        ValueError: they differ in length, or one class is absent.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.bool_)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"scores of shape {values.shape} and truth of shape {truth.shape}: expected one line each")
    if truth.all() or not truth.any():
        count = int(np.count_nonzero(truth))
        raise ValueError(f"both classes are needed; there are {count} positive and {truth.size - count} negative")
    return values, truth
