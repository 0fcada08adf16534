"""An evaluation as files for other programs: ``cases.csv``, ``summary.csv`` and ``evaluation.json``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from carina import RESEARCH_ONLY, __version__
from carina.errors import BadConfig
from carina.evaluate.summary import SPECIFICITIES
from carina.evaluate.values import CaseAgreement, CaseClassification, Evaluation
from carina.measure.table import Cell

EVALUATION_DECIMALS = 5

CASES, SUMMARY, JSON = "cases.csv", "summary.csv", "evaluation.json"


def write_tables(evaluation: Evaluation, folder: Path) -> None:
    """Write the three files; in CSV an infinite figure is ``inf``, in JSON, which has none, null.

    Raises:
        BadConfig: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(folder / CASES, case_rows(evaluation))
        _write_csv(folder / SUMMARY, [{"figure": name, **row} for name, row in summary_rows(evaluation).items()])
        encoded = msgspec.json.encode(evaluation_json(evaluation))
        (folder / JSON).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    except OSError as error:
        raise BadConfig("output.unwritable", f"{folder}: can't be written ({error.strerror}).") from error


def case_rows(evaluation: Evaluation) -> list[dict[str, Cell]]:
    """One row for each case, failed ones last with their reason; units are in the names."""
    rows = [_row(case, evaluation) for case in evaluation.cases]
    failed: list[dict[str, Cell]] = [
        {"case": one.case, "state": "failed", "code": one.code, "reason": one.reason} for one in evaluation.failures
    ]
    return rows + failed


def _row(case: CaseAgreement | CaseClassification, evaluation: Evaluation) -> dict[str, Cell]:
    row: dict[str, Cell] = {"case": case.case, "state": "done"}
    if isinstance(case, CaseClassification):
        names = dict(sorted(evaluation.subject.bundle.carina.labels.items()))
        row["label"] = names[case.label]
        for name, value in zip(names.values(), case.probabilities, strict=True):
            row[f"probability {name}"] = _rounded(value)
        return row
    for name in CaseAgreement.__dataclass_fields__:
        if name not in ("case", "detection"):
            row[name] = _rounded(getattr(case, name))
    if case.detection is not None:
        row["lesions"] = len(case.detection.lesions_ml)
        row["lesions_found"] = case.detection.found
        row["lesion_sensitivity"] = _rounded(case.detection.sensitivity)
        row["false_positives"] = len(case.detection.false_ml)
    return row


def summary_rows(evaluation: Evaluation) -> dict[str, dict[str, Cell]]:
    """Figures over all cases by name: a spread, or a value with an interval where there is one."""
    rows: dict[str, dict[str, Cell]] = {}
    if evaluation.segmentation is not None:
        for one in evaluation.segmentation.spreads:
            rows[one.figure] = {
                name: _rounded(getattr(one, name)) for name in one.__dataclass_fields__ if name != "figure"
            }
        seen = evaluation.segmentation.detection
        if seen is not None:
            rows["lesion_sensitivity"] = {
                "cases": seen.lesions,
                "value": _rounded(seen.sensitivity),
                "low": _rounded(seen.low),
                "high": _rounded(seen.high),
            }
            rows["false_positives_per_scan"] = {
                "cases": len(evaluation.cases),
                "value": _rounded(seen.false_positives_per_scan),
            }
            if seen.curve is not None:
                rows["free_response_score"] = {"cases": seen.lesions, "value": _rounded(seen.curve.score)}
    if evaluation.classification is not None:
        rows |= _classification_rows(evaluation)
    return rows


def _classification_rows(evaluation: Evaluation) -> dict[str, dict[str, Cell]]:
    found = evaluation.classification
    if found is None:
        return {}
    count = len(evaluation.cases)

    def row(value: float, low: float | None = None, high: float | None = None) -> dict[str, Cell]:
        interval: dict[str, Cell] = {} if low is None else {"low": _rounded(low), "high": _rounded(high)}
        return {"cases": count, "value": _rounded(value), **interval}

    rows = {"accuracy": row(found.accuracy)}
    told = found.discrimination
    if told is not None:
        rows["auc"] = row(told.area.auc, told.area.low, told.area.high)
        rows["sensitivity at probability 0.5"] = row(told.sensitivity)
        rows["specificity at probability 0.5"] = row(told.specificity)
        for wanted, point in zip(SPECIFICITIES, told.points, strict=True):
            rows[f"sensitivity at specificity {wanted:.2f}"] = row(
                point.sensitivity, point.sensitivity_low, point.sensitivity_high
            )
    for name in ("ece_before", "ece_after", "nll_before", "nll_after", "temperature"):
        rows[name] = row(getattr(found.calibration, name))
    return rows


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything as a value that JSON can hold: what was run, each case, each figure, each curve."""
    subject = evaluation.subject
    bundle = subject.bundle
    value: dict[str, Any] = {
        "notice": RESEARCH_ONLY,
        "software_version": __version__,
        "made_at": subject.when.isoformat(),
        "bundle": {
            "name": bundle.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "task": bundle.carina.task,
        },
        "data": str(subject.data),
        "split": subject.split.value,
        "runtime": subject.runtime,
        "cases": case_rows(evaluation),
        "summary": summary_rows(evaluation),
    }
    if evaluation.segmentation is not None and evaluation.segmentation.detection is not None:
        curve = evaluation.segmentation.detection.curve
        value["free_response"] = None if curve is None else _columns(curve)
        value["lesions"] = {
            case.case: case.detection
            for case in evaluation.cases
            if isinstance(case, CaseAgreement) and case.detection is not None
        }
    found = evaluation.classification
    if found is not None:
        told = found.discrimination
        value["roc"] = None if told is None else _columns(told.curve)
        value["operating_points"] = [] if told is None else list(told.points)
        value["reliability"] = {"before": list(found.calibration.before), "after": list(found.calibration.after)}
        value["not_computed"] = found.not_computed
    built = msgspec.to_builtins(value)
    return dict(_finite(built))


def _columns(curve: Any) -> dict[str, Any]:
    """A curve's arrays as lists, single figures as they are."""
    fields = {name: getattr(curve, name) for name in curve.__dataclass_fields__}
    return {name: field if isinstance(field, float) else field.tolist() for name, field in fields.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), EVALUATION_DECIMALS)


def _write_csv(file: Path, rows: Sequence[Mapping[str, Cell]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    temporary = file.with_name(f".{file.name}")
    with temporary.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(file)
