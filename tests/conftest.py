"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real CT data; the test skips where it is absent."""
    folder = Path(os.environ.get("CARINA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data not found at {folder}; set CARINA_TEST_DATA to its folder")
    return folder
