"""What lies over a picture lies just on it, in all planes and at every size of a window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from carina.service.viewer.scene import PLANES
from carina.service.viewer.server import run_app
from corrected_runs import CorrectedRun, ready
from viewer_runs import served

SIZES = [(1280, 720), (1366, 768), (1024, 600), (900, 500), (390, 844)]
PAGES_OF_PICTURES = ("/", "/correct/lesion", "/correct/lung", "/changes")
OVER = """() => [...document.querySelectorAll('figure img')].map((image) => {
  const box = (one) => { const { x, y, width, height } = one.getBoundingClientRect(); return [x, y, width, height]; };
  return [box(image), [...image.parentElement.querySelectorAll('svg, canvas')].map(box)];
})"""

DRAWN = "[...document.querySelectorAll('figure img')].every((one) => one.complete && one.naturalWidth)"
NEXT_FRAME = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path_factory.mktemp("over"))


@pytest.fixture(scope="module")
def url(corrected: CorrectedRun) -> Iterator[str]:
    folder = corrected.run.folder
    with served(run_app(folder, [folder], source=corrected.series, reader="Jane Doe")) as address:
        yield address


def check_boxes(page: Page, where: object, within_px: float) -> int:
    """Every overlay has the box of its picture; gives how many there are."""
    count = 0
    for image, overlays in page.evaluate(OVER):
        assert min(image[2:]) > 20, where
        for over in overlays:
            assert over == pytest.approx(image, abs=within_px), where
            count += 1
    return count


@pytest.mark.parametrize("is_scripted", [True, False])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_lies_over_a_picture_has_its_box(
    browser: Browser, url: str, width: int, height: int, *, is_scripted: bool
) -> None:
    with browser.new_context(viewport={"width": width, "height": height}, java_script_enabled=is_scripted) as context:
        page = context.new_page()
        found = {}
        for path in PAGES_OF_PICTURES if is_scripted else ("/",):
            page.goto(f"{url}{path}")
            if is_scripted:  # else no clock of the page goes
                page.wait_for_function(DRAWN)
                page.evaluate(NEXT_FRAME)
            within_px = 0.6 if is_scripted else 6.0  # without a script the cell's, which can be wider by some pixels
            found[path] = check_boxes(page, path, within_px)
    expected = {"/": 3, "/correct/lesion": 9, "/correct/lung": 9, "/changes": 0}
    assert found == (expected if is_scripted else {"/": 3})


@pytest.mark.parametrize("path", ["/", "/correct/lesion"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_click_draws_the_crosshair_where_it_was(
    browser: Browser, url: str, path: str, width: int, height: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        page = context.new_page()
        page.goto(f"{url}{path}")
        if path != "/":
            ready(page)
        page.wait_for_function(DRAWN)
        for plane in PLANES:
            image = page.locator(f".{plane} img")
            image.scroll_into_view_if_needed()
            image.click(position={"x": 1, "y": 1}, modifiers=["Control"])
            box = image.bounding_box()
            assert box
            x, y = 0.75 * box["width"], 0.25 * box["height"]
            image.click(position={"x": x, "y": y}, modifiers=["Control"])  # on Correct it moves the crosshair alone
            page.evaluate(NEXT_FRAME)  # the lines of the page change their length with what they say
            drawn = page.evaluate(
                """(plane) => [...document.querySelectorAll(`.${plane} .cross > line`)].map((line) => {
                     const { x, y } = line.getBoundingClientRect(); return [x, y]; })""",
                plane,
            )
            box = image.bounding_box()
            assert box
            step = max(box["width"], box["height"]) / 30 + 1  # a voxel of the phantom
            assert drawn[0][0] == pytest.approx(box["x"] + x, abs=step)
            assert drawn[1][1] == pytest.approx(box["y"] + y, abs=step)
