"""The two reports."""

from __future__ import annotations

from collections.abc import Sequence

from carina.measure.findings import Classification, KeySlice, RatioFindings
from carina.report.facts import ReportFacts


def classification_pdf(
    classification: Classification, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None
) -> bytes:
    """The COVID-19 classification as A4 pages; ``key_slices`` default to the classification's own."""
    raise NotImplementedError


def ratio_pdf(ratio: RatioFindings, facts: ReportFacts, key_slices: Sequence[KeySlice] | None = None) -> bytes:
    """The lesion to lung volume ratio as A4 pages; ``key_slices`` default to the findings' own."""
    raise NotImplementedError
