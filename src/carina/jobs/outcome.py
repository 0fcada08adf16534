"""What lists show of what a finished run came to: its warnings, its ratio, whether the scan was classified."""

from __future__ import annotations

from typing import Any

from carina.api.result import Run
from carina.errors import one_line, shortened


def outcome_columns(run: Run) -> dict[str, Any]:
    """The columns of the row of a job whose run is finished.

    Raises:
        BadConfig: a file of the run is gone or damaged.
    """
    warnings, regions = run.warnings, run.regions
    is_measured = bool(regions and regions[0]["lung_ml"])
    return {
        "warnings": len(warnings),
        "first_warning": shortened(one_line(warnings[0])) if warnings else "",
        "ratio_percent": float(regions[0]["ratio_percent"]) if is_measured else None,
        "is_classified": int(bool(run.probabilities)) if run.stored("classification.json") else None,
    }
