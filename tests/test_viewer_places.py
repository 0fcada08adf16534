"""From lesion to lesion, from page to page and at the end of the line: the place that is shown is not lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from carina.measure.findings import Classification, SaliencyFindings
from corrected_runs import CorrectedRun, ready, saved
from test_viewer_browser import opened
from test_viewer_correct_browser import AT_UNMARKED, correcting
from viewer_runs import posed, served, through_dicom, write_run

KEEPS_NOTHING = """for (const name of ["localStorage", "sessionStorage"]) {
  Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });
}"""
IN_VIEW = """of => { const { top, bottom } = of.getBoundingClientRect();
  return (Math.min(bottom, innerHeight) - Math.max(top, 0)) / Math.min(bottom - top, innerHeight); }"""
IS_FULL = 'Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };'


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    run = write_run(through_dicom(posed("plain"), tmp_path / "series"), tmp_path / "run")
    with served(run) as address:
        yield address


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


def test_next_and_previous_count_from_the_lesion_that_was_visited_last(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        first, second = page.locator("#lesions a").nth(0), page.locator("#lesions a").nth(1)
        for key, link in (("n", second), ("p", first)):
            page.keyboard.press("ArrowDown")
            expect(page.locator("#lesions a[aria-current]")).to_have_count(0)
            page.keyboard.press(key)
            expect(link).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize(("width", "height"), [(390, 700), (900, 950), (1280, 700)])
def test_a_jump_scrolls_the_list_and_leaves_the_picture_in_view(
    browser: Browser, url: str, width: int, height: int
) -> None:
    with opened(browser, f"{url}/") as page:
        page.set_viewport_size({"width": width, "height": height})
        page.locator("#lesions").evaluate("list => { list.style.maxHeight = '1.9rem'; }")
        second, picture = page.locator("#lesions a").nth(1), page.locator(".axial .picture")
        page.keyboard.press("n")
        expect(second).to_have_attribute("aria-current", "true")
        assert page.locator("#lesions").evaluate("list => list.scrollTop") > 5
        assert (page.evaluate("scrollY"), picture.evaluate(IN_VIEW) > 0.8) == (0, True)
        for plane in ("coronal", "axial"):
            page.locator(f".{plane} input").evaluate("slider => slider.dispatchEvent(new Event('input'))")
            second.scroll_into_view_if_needed()
            before = page.evaluate("scrollY")
            second.click()
            assert page.evaluate("scrollY") == before or width <= 900
            assert page.locator(f".{plane} .picture").evaluate(IN_VIEW) > 0.8


MOVING = ["ArrowDown", "Shift+ArrowUp", "PageDown", "PageUp", "1", "2", "3", "n", "p"]
ON_IMAGES = ["Home", "End", "m", "v", "d", "s"]
ON_CORRECT = ["ArrowLeft", "ArrowRight", " ", "x"]
DONE_WITH_THEM = {"\u2190", "\u2191", "\u2192", "\u2193", "Shift", "Page", "Space", *MOVING, *ON_IMAGES, *ON_CORRECT}
"""What the keys of ``MOVING``, ``ON_IMAGES`` and ``ON_CORRECT`` are called where a page lists its keys."""
ELSEWHERE = {"Esc", "w", "l", "o", "a", "+", "-", "t", "b", "e", "f", "g", "[", "]", "u", "r", "h"}
"""Keys that change how, or what, is drawn, but not where one looks."""


@pytest.mark.parametrize(("width", "height"), [(390, 700), (1280, 720)])
@pytest.mark.parametrize("page_of", ["images", "correct"])
def test_a_key_that_moves_the_picture_brings_it_into_view(
    browser: Browser, corrected: CorrectedRun, page_of: str, width: int, height: int
) -> None:
    with correcting(browser, corrected) as page:
        if page_of == "images":
            page.get_by_role("link", name="Images").click()
            page.locator("html.scripted").wait_for()
        assert set(page.locator(".keys kbd").all_text_contents()) <= DONE_WITH_THEM | ELSEWHERE
        page.set_viewport_size({"width": width, "height": height})
        page.locator("body").evaluate("body => { body.style.paddingBottom = '300vh'; }")
        for key in [*MOVING, *(ON_IMAGES if page_of == "images" else ON_CORRECT)]:
            active = page.locator(".pane.active .picture")
            active.evaluate("picture => picture.focus({ preventScroll: true })")
            page.evaluate("scrollTo(0, document.body.scrollHeight)")
            assert active.evaluate(IN_VIEW) < 0
            page.keyboard.press(key)
            shown = page.locator("#volume" if key in ("v", "d") else ".pane.active .picture")
            assert shown.evaluate(IN_VIEW) > 0.8, key
            if key in ("v", "d"):
                page.keyboard.press("s")


def test_correct_opens_where_images_were_and_goes_from_lesion_to_lesion(
    browser: Browser, corrected: CorrectedRun
) -> None:
    with correcting(browser, corrected) as page:
        page.get_by_role("link", name="Images").click()
        page.locator("html.scripted").wait_for()
        page.keyboard.press("n")
        expect(page).to_have_url(re.compile("at=lesion-2"))
        second = page.locator("#place").inner_text().partition(" mm")[0]
        page.get_by_role("link", name="Correct").click()
        ready(page)
        expect(page.locator("#place")).to_contain_text(second)
        page.keyboard.press("p")
        expect(page.locator("#place")).not_to_contain_text(second)
        page.keyboard.press("PageDown")
        page.keyboard.press("n")
        expect(page.locator("#place")).to_contain_text(second)
        page.keyboard.press("PageDown")
        expect(page.locator("#place")).not_to_contain_text(second)
        here = page.locator("#place").inner_text().partition(" mm")[0]
        page.get_by_role("link", name="Images").click()
        expect(page.locator("#place")).to_contain_text(here)


def test_what_belongs_to_a_saliency_is_shown_where_one_is_drawn(browser: Browser, tmp_path: Path) -> None:
    changes = SaliencyFindings(label="COVID-19", lowest=-0.1, highest=0.2, blocks=(4, 4, 4))
    found = Classification(uid="1.2.3", probabilities={"COVID-19": 0.7}, saliency=changes)
    run = write_run(through_dicom(posed("plain", (24, 32, 32)), tmp_path / "series"), tmp_path / "run", found)
    with served(run) as address, opened(browser, f"{address}/?overlay=saliency") as page:
        legend, box = page.locator("#saliency"), page.locator("label:has([name=saliency])")
        for mode in ("Volume", "Slices", "3D", "Slices"):
            button = page.get_by_role("button", name=mode, exact=True)
            if button.is_disabled():
                pytest.skip("the volume viewer is not installed; scripts/build_viewer.py builds it (needs npm)")
            button.click()
            for one in (legend, box):
                expect(one).to_be_visible(visible=mode == "Slices")
        box.uncheck()
        expect(legend).to_be_hidden()


def test_the_place_is_said_with_every_mask_however_late_one_comes(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected) as page:
        held: list[Route] = []
        page.route("**/correct/lung/mask.json", lambda route: held.append(route))
        page.reload()
        ready(page)
        expect(page.locator("#place")).to_contain_text("marked as lesion.")
        held[0].continue_()
        expect(page.locator("#place")).to_contain_text("marked as lesion, marked as lung.")


@pytest.mark.parametrize(
    ("answer", "words"), [(None, "The server does not answer"), (500, r"could not be read \(500\)")]
)
def test_what_was_said_of_another_place_does_not_stay(
    browser: Browser, url: str, answer: int | None, words: str
) -> None:
    page = browser.new_page()
    page.route("**/at/**", lambda route: route.fulfill(status=answer) if answer else route.abort())
    page.goto(f"{url}/")
    before = page.locator("#place").inner_text()
    assert " HU at " in before
    page.locator(".coronal img").click(position={"x": 30, "y": 30})
    expect(page.locator("#place")).to_have_text(re.compile(words))
    page.unroute("**/at/**")
    page.locator(".coronal img").click(position={"x": 40, "y": 40})
    expect(page.locator("#place")).to_contain_text(" HU at ")
    page.close()


def stroke_that_waits(page: Page) -> None:
    page.route("**/strokes", lambda route: route.abort())
    page.keyboard.press(" ")


def test_strokes_that_the_browser_has_no_room_for_are_told_and_sent(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, AT_UNMARKED) as page:
        page.add_init_script(IS_FULL)
        page.reload()
        ready(page)
        stroke_that_waits(page)
        words = "1 stroke not saved, and this browser can't keep them: leave this page open."
        expect(page.locator("#saved")).to_have_text(words)
        page.unroute("**/strokes")
        saved(page)
    assert corrected.stored.revision == 1


def test_a_browser_that_keeps_nothing_paints_all_the_same(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, AT_UNMARKED) as page:
        page.add_init_script(KEEPS_NOTHING)
        page.reload()
        ready(page)
        page.keyboard.press(" ")
        saved(page)
    assert corrected.stored.revision == 1
