"""findings: everything measured, as JSON and CSV."""

from __future__ import annotations

from typing import Any

from carina import RESEARCH_ONLY
from carina.measure.table import findings_json, findings_rows
from carina.operators.ports import ClassificationPort, FindingsTables, RatioPort
from carina.pipeline.operator import Operator


def findings(ratio: RatioPort, classification: ClassificationPort | None = None) -> FindingsTables:
    """Put volumes, ratios, mean HU by region and class probabilities into findings.json and findings.csv."""
    found: Any = findings_json(ratio, classification)
    measured, classified = found["volume_ratio"], found.get("classification", {})
    tree = {
        "notice": RESEARCH_ONLY,
        **measured,
        "made_by": {"volume_ratio": measured["made_by"], "classification": classified.get("made_by", "")},
        "warnings": list(dict.fromkeys((*measured["warnings"], *classified.get("warnings", [])))),
        "probabilities": classified.get("probabilities", {}),
        "not_computed": classified.get("not_computed", ""),
        "limits": classified.get("limits", []),
    }
    return FindingsTables(tree=tree, rows=findings_rows(ratio, classification))


OPERATOR = Operator(
    name="findings",
    images=("carina/findings",),
    function=findings,
    inputs={"/input": "ratio", "/classification": "classification"},
    outputs={"/output": ""},
    places={"/output": "."},
)
