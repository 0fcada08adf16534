"""Findings as flat rows for a CSV file or a data frame, and as one JSON value; units are in the names."""

from __future__ import annotations

from dataclasses import asdict

from carina.measure.findings import Classification, RatioFindings, RegionFindings, in_class_order

Cell = str | int | float | None
"""What a table's cell may hold; None where nothing could be measured."""

REGION_COLUMNS = ("region", "lung_ml", "lesion_ml", "ratio_percent", "lung_mean_hu", "lesion_mean_hu")

DECIMALS = 3
"""Decimals of every figure: a thousandth of a ml, a percent and a HU."""


def findings_rows(ratio: RatioFindings, classification: Classification | None = None) -> list[dict[str, Cell]]:
    """One row per region, each with the series' UID; columns are ``uid`` and ``REGION_COLUMNS``.

    The count of lesions stands in the first row (``lungs``), and the class probabilities too
    (``probability COVID-19``), and every warning with the reason why there is no probability: they are the whole
    scan's.
    """
    rows = [{"uid": ratio.uid, **_region(region)} for region in ratio.regions]
    probabilities = {} if classification is None else in_class_order(classification.probabilities)
    for number, row in enumerate(rows):
        row["lesion_count"] = ratio.lesion_count if number == 0 else None
        for name, value in probabilities.items():
            row[f"probability {name}"] = _rounded(value) if number == 0 else None
        row["warnings"] = " ".join(all_warnings(ratio, classification)) if number == 0 else None
    return rows


def all_warnings(ratio: RatioFindings, classification: Classification | None = None) -> tuple[str, ...]:
    """What must be said wherever the findings are: each warning once, and why there are no probabilities."""
    said = ratio.warnings
    if classification is not None:
        said = (*said, *classification.warnings, classification.not_computed)
    return tuple(dict.fromkeys(filter(None, said)))


def findings_json(ratio: RatioFindings | None, classification: Classification | None = None) -> dict[str, object]:
    """Findings as a value that JSON can hold, with who made them and every warning."""
    value: dict[str, object] = {}
    if ratio is not None:
        value["volume_ratio"] = {
            "uid": ratio.uid,
            "lesion_count": ratio.lesion_count,
            "lesions": [{**asdict(site), "lesion_ml": _rounded(site.lesion_ml)} for site in ratio.lesions],
            "regions": [_region(region) for region in ratio.regions],
            "key_slices": [key.index for key in ratio.key_slices],
            "made_by": list(ratio.made_by),
            "warnings": list(ratio.warnings),
        }
    if classification is not None:
        value["classification"] = {
            "uid": classification.uid,
            "probabilities": {
                name: _rounded(value) for name, value in in_class_order(classification.probabilities).items()
            },
            "made_by": classification.made_by,
            "not_computed": classification.not_computed,
            "limits": list(classification.limits),
            "warnings": list(classification.warnings),
        }
    return value


def _region(region: RegionFindings) -> dict[str, Cell]:
    figures = {name: getattr(region, name) for name in REGION_COLUMNS[1:]}
    return {"region": region.region, **{name: _rounded(value) for name, value in figures.items()}}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), DECIMALS)
