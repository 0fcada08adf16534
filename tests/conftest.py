"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
"""The same examples every time: continuous integration tells of a change, not of luck; at home the search goes on."""

if os.environ.get("CI") == "true":
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real CT data; the test skips where it is absent."""
    folder = Path(os.environ.get("CARINA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data not found at {folder}; set CARINA_TEST_DATA to its folder")
    return folder


TOOL_MISSING = ("not installed", "could not import")
"""Words in a skip's reason that say an installable tool is missing; where CI is set, such a skip fails."""


def _fail_missing_tool(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true" and report.skipped and any(w in str(report.longrepr) for w in TOOL_MISSING):
        report.outcome = "failed"
        report.longrepr = f"with CI=true nothing may be skipped for want of a tool: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_missing_tool(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_missing_tool(report)
    return report
