"""What an evaluation measured, as frozen values; figures of agreement are 0 to 1, volumes in ml, distances in mm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import numpy as np

from carina.measure.agreement import Auc
from carina.measure.calibration import ReliabilityBin
from carina.measure.detection import Detection, FreeResponse
from carina.measure.roc import OperatingPoint, RocCurve
from carina.models.bundle import Bundle


class Split(StrEnum):
    """Which part of a data list is measured."""

    VALIDATION = "validation"
    TRAINING = "training"
    ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was measured on what, how and when."""

    bundle: Bundle
    data: Path
    split: Split
    runtime: str
    when: datetime


@dataclass(frozen=True, kw_only=True)
class CaseAgreement:
    """Result against truth in one scan; ``detection`` only for lesions. docs/evaluation.md defines degenerate cases."""

    case: str
    dice: float
    surface_dice: float
    hd95_mm: float
    truth_ml: float
    found_ml: float
    volume_error_ml: float
    volume_error_percent: float
    detection: Detection | None = None


@dataclass(frozen=True, kw_only=True)
class CaseClassification:
    """A scan's true class (its number) and the probability of each class, in the order of their numbers."""

    case: str
    label: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class FailedCase:
    """A case without a result, and why."""

    case: str
    code: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One figure over all cases: ``cases`` have a finite value and are summed up, ``infinite`` have none.

    ``sd`` is the sample's standard deviation, None below two cases; all are None where no case has a finite value.
    """

    figure: str
    cases: int
    infinite: int
    mean: float | None
    sd: float | None
    median: float | None
    min: float | None
    max: float | None


def spread(figure: str, values: Iterable[float]) -> Spread:
    """Sum up one figure over cases."""
    given = list(values)
    finite = np.array([value for value in given if math.isfinite(value)])
    known = finite.size > 0
    return Spread(
        figure=figure,
        cases=int(finite.size),
        infinite=len(given) - int(finite.size),
        mean=float(finite.mean()) if known else None,
        sd=float(finite.std(ddof=1)) if finite.size > 1 else None,
        median=float(np.median(finite)) if known else None,
        min=float(finite.min()) if known else None,
        max=float(finite.max()) if known else None,
    )


@dataclass(frozen=True, kw_only=True)
class DetectionSummary:
    """Lesions of all scans: how many there are and were found, with Wilson's 95 % interval of the share found."""

    lesions: int
    found: int
    sensitivity: float | None
    low: float | None
    high: float | None
    false_positives: int
    false_positives_per_scan: float
    curve: FreeResponse | None


@dataclass(frozen=True, kw_only=True)
class Discrimination:
    """How well positive and negative scans are told apart; points are at the specificities asked for.

    ``sensitivity`` and ``specificity`` are those at a probability of 0.5.
    """

    area: Auc
    curve: RocCurve
    points: tuple[OperatingPoint, ...]
    sensitivity: float
    specificity: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Reliability, calibration error and negative log likelihood before and after temperature scaling.

    Figures after scaling are cross-fitted: each case's temperature is that of the other folds. ``temperature`` is
    that of all cases.
    """

    temperature: float
    before: tuple[ReliabilityBin, ...]
    after: tuple[ReliabilityBin, ...]
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


@dataclass(frozen=True, kw_only=True)
class SegmentationSummary:
    """Figures of a segmentation bundle over all cases."""

    spreads: tuple[Spread, ...]
    detection: DetectionSummary | None


@dataclass(frozen=True, kw_only=True)
class ClassificationSummary:
    """Figures of a classifier over all cases; ``positive`` names the class with the highest number.

    ``discrimination`` is None where only one class is there, which ``not_computed`` says.
    """

    positive: str
    counts: dict[str, int]
    accuracy: float
    discrimination: Discrimination | None
    calibration: Calibration
    not_computed: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportPicture:
    """A slice or plot for the report: JPEG or PNG bytes, its size in pixels (width, height), and its caption."""

    image: bytes
    size: tuple[int, int]
    caption: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything an evaluation found; exactly one of the summaries is there, none where every case failed."""

    subject: Subject
    cases: tuple[CaseAgreement, ...] | tuple[CaseClassification, ...]
    failures: tuple[FailedCase, ...]
    segmentation: SegmentationSummary | None = None
    classification: ClassificationSummary | None = None
    worst: tuple[tuple[str, tuple[ReportPicture, ...]], ...] = ()
