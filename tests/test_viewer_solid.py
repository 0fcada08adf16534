"""The volume in the browser: its images are fetched once, and lungs do not hide what 3D shows inside of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from test_viewer_browser import PATIENCE_MS, Pixels, coloured, opened, pixels_of
from viewer_runs import posed, served, write_run

NOT_BUILT = "the volume viewer is not built (scripts/build_viewer.py, needs npm)"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_run(posed("plain"), tmp_path_factory.mktemp("solid") / "run")) as address:
        yield address


@pytest.fixture(scope="module")
def fine_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a run whose voxels are so small that a quarter of them is shown first."""
    with served(write_run(posed("plain", (60, 256, 256)), tmp_path_factory.mktemp("fine") / "run")) as address:
        yield address


@pytest.fixture(scope="module")
def small_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_run(posed("plain", (24, 48, 48)), tmp_path_factory.mktemp("small") / "run")) as address:
        yield address


def to_solid(page: Page) -> None:
    if page.get_by_role("button", name="3D").is_disabled():
        pytest.skip(NOT_BUILT)
    page.get_by_role("button", name="3D").click()
    expect(page.locator("#volume")).to_have_attribute("data-mode", "solid", timeout=PATIENCE_MS)
    expect(page.locator("#volume p")).to_have_text(re.compile("resolution\\.$"), timeout=PATIENCE_MS)


def settled(page: Page) -> Pixels:
    """The solid, once two pictures of it in a row are the same."""
    before = pixels_of(page.locator("#volume canvas"))
    for _ in range(60):
        page.wait_for_timeout(250)
        now = pixels_of(page.locator("#volume canvas"))
        if (now == before).all():
            return now
        before = now
    raise AssertionError("the solid does not come to rest")


@pytest.mark.parametrize(("place", "size"), [("url", "full/ct.nii"), ("fine_url", "quarter/ct.nii.gz")])
def test_each_image_is_fetched_once_however_many_are_made_of_it(
    browser: Browser, request: pytest.FixtureRequest, place: str, size: str
) -> None:
    url = request.getfixturevalue(place)
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 600, "height": 500})
    page.set_default_timeout(PATIENCE_MS)
    page.on("request", lambda one: asked.append(one.url) if "/volume/" in one.url else None)
    page.goto(f"{url}/")
    if page.get_by_role("button", name="3D").is_disabled():
        pytest.skip(NOT_BUILT)
    expect(page.locator("#volume")).to_have_attribute("data-size", size.partition("/")[0], timeout=PATIENCE_MS)
    page.close()
    assert sorted(asked) == [f"{url}/volume/{size}", f"{url}/volume/{size.partition('/')[0]}/marks.nii.gz"]


@pytest.mark.parametrize("inside", ["airways", "lungs"])
def test_what_lies_in_the_lungs_is_not_hidden_by_those_that_are_drawn_unasked(
    browser: Browser, small_url: str, inside: str
) -> None:
    with opened(browser, f"{small_url}/", viewport={"width": 320, "height": 320}) as page:
        to_solid(page)
        bones = settled(page)
        page.get_by_label("Shown as").select_option(inside)
        unasked = settled(page)
        assert (unasked != bones).any()
        page.locator("[name=lung]").select_option("off")
        assert (settled(page) == unasked).all()
        page.locator("[name=lung]").select_option("fill")
        covered = settled(page)
    assert np.count_nonzero(coloured(covered)[0]) > np.count_nonzero(coloured(unasked)[0])
