"""A slice that does not come: no other stands in its place, and it comes with the next move once it can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from corrected_runs import CorrectedRun
from test_viewer_browser import opened
from test_viewer_correct_browser import correcting
from viewer_runs import posed, served, through_dicom, write_run


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    run = write_run(through_dicom(posed("plain"), tmp_path / "series"), tmp_path / "run")
    with served(run) as address:
        yield address


def test_the_viewer_shows_no_other_slice_under_the_number_of_one_that_failed(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        picture = page.locator(".axial img")
        expect(picture).to_have_attribute("src", re.compile("."))
        page.locator(".axial .picture").focus()
        page.route("**/slice/axial/*", lambda route: route.fulfill(status=404))
        page.keyboard.press("PageUp")
        expect(page.get_by_text("This slice could not be shown")).to_be_visible()
        expect(picture).not_to_have_attribute("src", re.compile("."))
        page.unroute("**/slice/axial/*")
        page.keyboard.press("PageDown")
        expect(picture).to_have_attribute("src", re.compile("."))


def test_what_is_corrected_is_not_painted_over_another_slice(browser: Browser, tmp_path: Path) -> None:
    with correcting(browser, CorrectedRun("plain", tmp_path)) as page:
        page.route("**/slice/axial/*", lambda route: route.fulfill(status=404))
        page.locator(".axial .picture").focus()
        page.keyboard.press("PageUp")
        expect(page.locator(".axial img")).not_to_have_attribute("src", re.compile("."))
        page.unroute("**/slice/axial/*")
        page.keyboard.press("PageUp")
        expect(page.locator(".axial img")).to_have_attribute("src", re.compile("."))
