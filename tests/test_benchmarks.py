"""Benchmarks are run by hand; what can break without being seen is looked at here."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

pytest.importorskip("monai", reason="the train extra is not installed")


def test_the_stopwatch_listens_to_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    compare = importlib.import_module("compare")
    missing = [name for name in compare.OURS if not callable(getattr(compare.segmentation, name, None))]
    assert compare.OURS and not missing
