"""A slice that does not come: no other stands in its place, and it comes with the next move once it can."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from carina.service.viewer.scene import PLANES
from carina.service.viewer.server import run_app
from corrected_runs import CorrectedRun, saved
from test_viewer_browser import opened
from test_viewer_correct_browser import AT_UNMARKED, correcting
from test_viewer_overlay import DRAWN
from viewer_runs import posed, served, through_dicom, write_run

NOT_SHOWN = "The axial slice could not be shown"
AGAIN = "The next move tries again."
BY_ITSELF = "It is asked for again until it comes."


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    run = write_run(through_dicom(posed("plain"), tmp_path / "series"), tmp_path / "run")
    with served(run) as address:
        yield address


@contextmanager
def complaining(browser: Browser, address: str) -> Iterator[Page]:
    """A page of a browser that may say on its console what does not come."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    yield page
    page.close()


def test_the_viewer_shows_no_other_slice_under_the_number_of_one_that_failed(browser: Browser, url: str) -> None:
    with opened(browser, f"{url}/") as page:
        picture = page.locator(".axial img")
        expect(picture).to_have_attribute("src", re.compile("."))
        page.locator(".axial .picture").focus()
        page.route("**/slice/axial/*", lambda route: route.fulfill(status=404))
        page.keyboard.press("PageUp")
        expect(page.locator("#trouble")).to_have_text(f"{NOT_SHOWN} (the server answers 404). {AGAIN}")
        expect(picture).not_to_have_attribute("src", re.compile("."))
        page.unroute("**/slice/axial/*")
        page.keyboard.press("PageDown")
        expect(picture).to_have_attribute("src", re.compile("."))
        expect(page.locator("#trouble")).to_be_empty()


@pytest.mark.parametrize("page_of", ["/", "/correct/lesion"])
def test_a_slice_that_is_missing_is_said_until_it_is_there_whatever_is_said_beside_it(
    browser: Browser, url: str, page_of: str
) -> None:
    with complaining(browser, url + page_of) as page:
        place, trouble = page.locator("#place"), page.locator("#trouble")
        expect(page.locator(".axial img")).to_have_attribute("src", re.compile("."))
        page.locator(".axial .picture").focus()
        page.route("**/slice/axial/*", lambda route: route.abort())
        before = place.inner_text()
        page.keyboard.press("PageUp")
        expect(trouble).to_have_text(f"{NOT_SHOWN} (the server does not answer). {BY_ITSELF}")
        expect(place).not_to_have_text(before)
        expect(place).to_contain_text(" mm")
        page.locator(".coronal .picture").focus()
        page.keyboard.press("PageDown")
        page.wait_for_timeout(600)  # the coronal slice is drawn, and the line of the place is written again
        expect(trouble).to_have_text(f"{NOT_SHOWN} (the server does not answer). {BY_ITSELF}")
        page.unroute("**/slice/axial/*")
        page.locator(".axial .picture").focus()
        page.keyboard.press("PageUp")
        expect(trouble).to_be_empty()


def test_two_planes_that_are_missing_are_named(browser: Browser, url: str) -> None:
    with complaining(browser, f"{url}/") as page:
        page.route("**/slice/*/*", lambda route: route.fulfill(status=503))
        page.keyboard.press("w")
        expect(page.locator("#trouble")).to_contain_text("slices could not be shown (the server answers 503).")
        for plane in ("axial", "coronal", "sagittal"):
            expect(page.locator("#trouble")).to_contain_text(plane)


def test_a_compared_slice_that_is_missing_is_said(browser: Browser, tmp_path: Path) -> None:
    runs = [write_run(posed("plain"), tmp_path / name) for name in ("earlier", "later")]
    with served(run_app(runs[1], runs[:1])) as url, complaining(browser, f"{url}/changes") as page:
        slider, trouble = page.get_by_label("Slice"), page.locator("#trouble")
        page.route("**/earlier/1/slice/**", lambda route: route.fulfill(status=500))
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(trouble).to_have_text("The earlier slice could not be shown (the server answers 500). " + BY_ITSELF)
        page.unroute("**/earlier/1/slice/**")
        page.keyboard.press("ArrowRight")
        expect(trouble).to_be_empty()
        for place, title in ((0, "Earlier"), (1, "This scan")):
            number = page.locator(".beside output").nth(place).inner_text()
            expect(page.locator(".beside img").nth(place)).to_have_attribute("alt", f"{title}: axial slice {number}.")


@pytest.mark.parametrize("page_of", ["/", "/correct/lesion"])
def test_nothing_is_said_of_a_place_that_can_not_be_read(browser: Browser, url: str, page_of: str) -> None:
    with complaining(browser, url + page_of) as page:
        place, picture = page.locator("#place"), page.locator(".axial img")
        page.locator(".axial .picture").focus()
        page.keyboard.press("PageDown")
        expect(picture).to_have_attribute("alt", re.compile("Axial slice"))
        page.route("**/at/**", lambda route: route.fulfill(status=500))
        page.route("**/slice/axial/*", lambda route: route.abort())
        page.keyboard.press("PageDown")
        expect(place).not_to_contain_text(" mm")
        expect(picture).to_have_attribute("alt", "")
        page.unroute_all()  # the server is back: nobody moves
        expect(place).to_contain_text(" mm")
        expect(picture).to_have_attribute("alt", re.compile("Axial slice"))


def test_what_is_corrected_is_not_painted_over_another_slice(browser: Browser, tmp_path: Path) -> None:
    with correcting(browser, CorrectedRun("plain", tmp_path)) as page:
        page.route("**/slice/axial/*", lambda route: route.fulfill(status=404))
        page.locator(".axial .picture").focus()
        page.keyboard.press("PageUp")
        expect(page.locator(".axial img")).not_to_have_attribute("src", re.compile("."))
        page.unroute("**/slice/axial/*")
        page.keyboard.press("PageUp")
        expect(page.locator(".axial img")).to_have_attribute("src", re.compile("."))


IS_GONE = "plane => !document.querySelector(`.${plane} img`).hasAttribute('src')"


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("answer", [None, 404])
def test_a_plane_without_a_picture_takes_no_stroke_and_says_why(
    browser: Browser, tmp_path: Path, plane: str, answer: int | None
) -> None:
    corrected = CorrectedRun("plain", tmp_path)
    with correcting(browser, corrected, AT_UNMARKED) as page:
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.wait_for_function(DRAWN)
        page.route("**/slice/**", lambda route: route.fulfill(status=answer) if answer else route.abort())
        picture = page.locator(f".{plane} .picture")
        picture.focus()
        page.keyboard.press("PageUp")
        page.wait_for_function(IS_GONE, arg=plane)
        before = page.locator(f".{plane} .index").inner_text(), page.url
        words = f"The {plane} slice is not shown, so nothing is painted on it."
        for key in (" ", "x"):
            page.locator("#said").evaluate("said => { said.textContent = ''; }")
            page.keyboard.press(key)
            expect(page.locator("#said")).to_have_text(words)
        page.locator("#said").evaluate("said => { said.textContent = ''; }")
        for name in ("pointerdown", "pointermove", "pointerup"):
            picture.dispatch_event(name, {"button": 0, "pointerId": 1, "clientX": 700, "clientY": 400})
        expect(page.locator("#said")).to_have_text(words)
        expect(page.locator("#saved")).to_have_text("Nothing painted yet.")
        assert page.locator(f".{plane} .index").inner_text() == before[0]
        page.unroute_all()
        page.keyboard.press("PageDown")
        expect(page.locator(f".{plane} img")).to_have_attribute("src", re.compile("."))
        expect(page.locator("#said")).to_be_empty()
        page.keyboard.press(" ")
        saved(page)
        assert not [one for one in asked if "NaN" in one]
    assert corrected.stored.revision == 1


@pytest.mark.parametrize("page_of", ["/", "/correct/lesion"])
def test_a_click_counts_while_the_next_slice_is_on_its_way(browser: Browser, url: str, page_of: str) -> None:
    with complaining(browser, url + page_of) as page:
        page.wait_for_function(DRAWN)
        page.locator(".coronal .picture").focus()
        held: list[Route] = []
        page.route("**/slice/**", lambda route: held.append(route))
        with page.expect_request("**/slice/coronal/*"):
            page.keyboard.press("PageDown")
        upright = page.locator(".coronal .cross > line").first
        before = upright.get_attribute("x1")
        page.locator(".coronal img").click(position={"x": 9, "y": 40}, modifiers=["Control"])
        assert before and float((upright.get_attribute("x1") or before).rstrip("%")) < 10 < float(before.rstrip("%"))
        for route in held:
            route.abort()


def test_a_click_on_a_picture_that_is_away_moves_nowhere(browser: Browser, url: str) -> None:
    with complaining(browser, f"{url}/") as page:
        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.url))
        page.wait_for_function(DRAWN)
        at = page.locator("#tools [name=at]")
        page.route("**/slice/**", lambda route: route.abort())
        page.keyboard.press("w")
        for plane in PLANES:
            page.wait_for_function(IS_GONE, arg=plane)
        before = at.input_value()
        for plane in PLANES:
            spot = {"button": 0, "pointerId": 1, "clientX": 700, "clientY": 400}
            page.evaluate(
                "([plane, spot]) => { try { document.querySelector(`.${plane} .picture`)"
                ".dispatchEvent(new PointerEvent('pointerdown', { bubbles: true, ...spot })); } catch {} }",
                [plane, spot],
            )
        assert at.input_value() == before and not [one for one in asked if "NaN" in one]


@pytest.mark.parametrize("page_of", ["/", "/correct/lesion"])
def test_what_a_log_in_elsewhere_lets_through_comes_when_its_reader_is_back(
    browser: Browser, url: str, page_of: str
) -> None:
    with complaining(browser, url + page_of) as page:
        picture = page.locator(".axial img")
        expect(picture).to_have_attribute("src", re.compile("."))
        page.locator(".axial .picture").focus()
        for asked in ("**/slice/axial/*", "**/at/**"):
            page.route(asked, lambda route: route.fulfill(status=401))
        page.keyboard.press("PageUp")
        expect(picture).not_to_have_attribute("src", re.compile("."))
        page.unroute_all()
        page.evaluate("window.dispatchEvent(new Event('focus'))")
        expect(picture).to_have_attribute("src", re.compile("."))
        expect(page.locator("#trouble")).to_be_empty()
        expect(page.locator("#place")).to_contain_text(" mm")
