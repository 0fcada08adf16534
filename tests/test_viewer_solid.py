"""The volume in the browser: its images are fetched once; 3D shows airways and what is in the lungs, and says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, Page, expect
from scipy import ndimage

from test_viewer_browser import Pixels, coloured, opened, pixels_of, volume_shown
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
    expect(page.locator("#volume")).to_have_attribute("data-mode", "solid")
    expect(page.locator("#volume p")).to_have_text(re.compile("resolution\\.$"))


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


def shown_as(page: Page, solid: str) -> str:
    """What the page says of a solid once it is shown."""
    page.get_by_label("Shown as").select_option(solid)
    expect(page.locator("#volume")).to_have_attribute("data-solid", solid)
    return page.locator("#volume p").inner_text()


def thick(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """What is drawn, less the lines of the crosshair, the list above, the cube and the words below."""
    drawn: npt.NDArray[np.bool_] = ndimage.binary_opening(flags, np.ones((3, 3), np.bool_))
    drawn[:50] = drawn[3 * len(drawn) // 4 :] = False
    return drawn


@pytest.mark.parametrize(("place", "size"), [("url", "full/ct.nii"), ("fine_url", "quarter/ct.nii.gz")])
def test_each_image_is_fetched_once_however_many_are_made_of_it(
    browser: Browser, request: pytest.FixtureRequest, place: str, size: str
) -> None:
    url = request.getfixturevalue(place)
    asked: list[str] = []
    page = browser.new_page(viewport={"width": 600, "height": 500})
    page.on("request", lambda one: asked.append(one.url) if "/volume/" in one.url else None)
    page.goto(f"{url}/")
    if page.get_by_role("button", name="3D").is_disabled():
        pytest.skip(NOT_BUILT)
    expect(page.locator("#volume")).to_have_attribute("data-size", size.partition("/")[0])
    page.close()
    assert sorted(asked) == [f"{url}/volume/{size}", f"{url}/volume/{size.partition('/')[0]}/marks.nii.gz"]


def test_an_outline_is_a_line_where_a_mask_ends_level_with_the_plane_and_goes_round_lesions(
    browser: Browser, small_url: str
) -> None:
    lung = posed("plain", (24, 48, 48)).lung.labels
    last = int(np.flatnonzero(lung.any(axis=(1, 2)))[-1])
    with opened(browser, f"{small_url}/?at={last},24,24&lesion=off&lung=fill&opacity=100") as page:
        volume_shown(page)
        filled = settled(page)
        page.locator("[name=lung]").select_option("outline")
        outlined = settled(page)
    width = int(0.6 * filled.shape[1])
    area, line = (coloured(pixels[:, :width])[0] for pixels in (filled, outlined))
    assert line.any() and not (line & ~area).any()
    assert line.sum() < 0.6 * area.sum()
    assert (ndimage.binary_fill_holes(line) == area).mean() > 0.99, "lesions that are not shown leave no hole"


@pytest.mark.parametrize("inside", ["airways", "lungs"])
def test_what_lies_in_the_lungs_is_not_hidden_by_those_that_are_drawn_unasked(
    browser: Browser, small_url: str, inside: str
) -> None:
    with opened(browser, f"{small_url}/", viewport={"width": 320, "height": 320}) as page:
        to_solid(page)
        bones = settled(page)
        shown_as(page, inside)
        unasked = settled(page)
        assert (unasked != bones).any()
        page.locator("[name=lung]").select_option("off")
        assert (settled(page) == unasked).all()
        page.locator("[name=lung]").select_option("fill")
        covered = settled(page)
    assert np.count_nonzero(coloured(covered)[0]) > np.count_nonzero(coloured(unasked)[0])


def test_airways_are_a_tree_and_lungs_are_vessels_without_ribs(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/?overlay=none", viewport={"width": 400, "height": 420}) as page:
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url.rsplit("/volume/")[-1]))
        to_solid(page)
        red, _, blue = settled(page).astype(int).transpose(2, 0, 1)
        bones = thick((abs(red - blue) < 25) & (red > 90))
        assert not any(name.startswith("solid") for name in asked), "fetched before they are wanted"

        assert shown_as(page, "airways") == "Trachea and bronchi, as far as they could be followed."
        red, _, blue = settled(page).astype(int).transpose(2, 0, 1)
        tree = thick(blue > 120)
        rows, columns = np.nonzero(tree)
        middle = np.median(columns[rows < rows.min() + 20])
        reach = [(middle - columns.min()), (columns.max() - middle)]
        assert np.ptp(rows) > 0.3 * len(tree) and min(reach) > 0.08 * tree.shape[1]
        assert np.ptp(columns[rows < rows.min() + 20]) < 0.5 * sum(reach), "above the fork it is one tube"
        assert re.match("Airways and lesions in 3D", page.locator("canvas").get_attribute("aria-label") or "")

        assert shown_as(page, "lungs").startswith("Inside the lungs: vessels and disease")
        red, _, blue = settled(page).astype(int).transpose(2, 0, 1)
        vessels, grey = thick(red - blue > 25), thick((abs(red - blue) < 15) & (red > 90))
        rows, columns = np.nonzero(vessels)
        assert (columns < middle - 10).any() and (columns > middle + 10).any()
        assert np.count_nonzero(grey) < 0.05 * np.count_nonzero(bones)
        assert [name for name in asked if name.startswith("solid/marks")] != []


def test_where_there_is_no_trachea_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    phantom = posed("plain", (40, 64, 64))
    box = (slice(0, 14), slice(None), slice(None))
    grid = replace(phantom.volume.grid, shape=(14, 64, 64))
    bases = replace(
        phantom,
        volume=replace(phantom.volume, hu=phantom.volume.hu[box].copy(), grid=grid),
        lung=replace(phantom.lung, labels=phantom.lung.labels[box].copy(), grid=grid),
        lesion=replace(phantom.lesion, labels=phantom.lesion.labels[box].copy(), grid=grid),
    )
    with served(write_run(bases, tmp_path / "run")) as address:
        page = browser.new_page(viewport={"width": 320, "height": 320})
        page.goto(f"{address}/")
        to_solid(page)
        assert shown_as(page, "airways").startswith("No airways are shown: no trachea")
        assert shown_as(page, "bone").endswith("resolution.")
        page.close()
