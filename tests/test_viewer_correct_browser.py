"""Masks corrected in a real Chromium: what was painted outlives tab and server, and is what the object holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from pydicom import dcmread
from starlette.applications import Starlette
from starlette.routing import Mount

from carina.corrections.decisions import decide
from carina.corrections.finish import Draft, finish, finished_folder, finished_of
from carina.corrections.masks import MaskName
from carina.corrections.standing import Decision
from carina.corrections.voxel_runs import runs_of_flags
from carina.report.overlay import layout
from carina.service.viewer.agreement_page import agreement_routes
from carina.service.viewer.looked_at import RunsLookedAt
from carina.service.viewer.routes import Above, viewer_routes
from carina.service.viewer.scene import PLANES
from carina.service.viewer.server import run_app
from corrected_runs import AT, CorrectedRun, decided, disc, ready, saved
from dicom_objects_samples import errors_of, placed, truth
from test_viewer_browser import AXE, opened
from viewer_runs import served

DRAGGED = (0.3, 0.35), (0.4, 0.45)
"""From and to, as shares of a picture's width and height: up and to the left of its middle."""
AT_UNMARKED = f"?at={','.join(map(str, AT))}"


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


def dragged(page: Page, plane: str) -> None:
    box = page.locator(f".{plane} img").bounding_box()
    assert box
    (x, y), (to_x, to_y) = [(box["x"] + box["width"] * a, box["y"] + box["height"] * b) for a, b in DRAGGED]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=6)
    page.mouse.up()


@contextmanager
def correcting(browser: Browser, corrected: CorrectedRun, query: str = "") -> Iterator[Page]:
    """The page Correct, in the largest lesion where nothing is asked for: there a stroke changes nothing."""
    app = run_app(corrected.run.folder, source=corrected.series, reader="Jane Doe")
    with served(app) as address, browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{address}/correct/lesion{query}")
        ready(page)
        yield page


@pytest.mark.parametrize("pose", ["plain", "feet first", "oblique"])
def test_keys_alone_paint_on_three_planes_and_the_object_holds_just_that(
    browser: Browser, tmp_path: Path, pose: str
) -> None:
    corrected = CorrectedRun(pose, tmp_path)
    expected = corrected.network.labels > 0
    with correcting(browser, corrected, AT_UNMARKED) as page:
        for _ in range(5):
            page.keyboard.press("]")
        for key, plane in zip("123", PLANES, strict=True):
            page.keyboard.press(key)
            page.keyboard.press(" ")
            expected |= disc(corrected.grid, plane, AT)
        saved(page)
        page.get_by_role("button", name="Finish the correction").focus()
        page.keyboard.press("Enter")
        decided(page, "Corrected by Jane Doe")
    np.testing.assert_array_equal(corrected.stored.labels > 0, expected)
    path = finished_folder(corrected.run.folder, MaskName.LESION, 1) / "dicom" / "lesion-seg.dcm"
    assert errors_of(path) == []
    painted = replace(corrected.network, labels=expected.astype(np.uint8))
    np.testing.assert_array_equal(placed(path, tmp_path / "itk")[1], truth(painted, 1))
    assert dcmread(path).ContentCreatorName == "Doe^Jane"


TOWARDS = {"axial": (-1, -1, 0), "coronal": (-1, 0, 1), "sagittal": (0, -1, 1)}
"""Where up and left of the middle lies (LPS): the patient's right or front, the front or the head."""


@pytest.mark.parametrize("pose", ["prone", "coronal", "oblique"])
def test_a_stroke_of_the_pointer_lies_where_the_picture_shows_it(browser: Browser, tmp_path: Path, pose: str) -> None:
    corrected = CorrectedRun(pose, tmp_path)
    middle = tuple(count // 2 for count in corrected.grid.shape)
    centre = corrected.grid.points_mm(middle)
    with correcting(browser, corrected) as page:
        for plane in PLANES:
            page.goto(page.url.split("?")[0] + f"?at={','.join(map(str, middle))}")
            ready(page)
            before = corrected.stored.labels > 0
            dragged(page, plane)
            saved(page)
            places = np.argwhere((corrected.stored.labels > 0) & ~before)
            assert len(places) > 4
            away = (corrected.grid.points_mm(places) - centre).mean(axis=0)
            for axis, way in enumerate(TOWARDS[plane]):
                assert way == 0 or way * away[axis] > 10, f"{plane}: {away}"
            normal = layout(corrected.grid, plane).normal
            assert set(places[:, normal]) == {middle[normal]}


def test_what_is_drawn_lies_under_the_pointer(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected) as page:
        dragged(page, "coronal")
        saved(page)
        shares = page.evaluate(
            """() => {
              const canvas = document.querySelector('.coronal .fill');
              const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
              const seen = [];
              for (let place = 0; place < width * height; place += 1) {
                const across = place % width;
                const down = (place - across) / width;
                if (data[4 * place + 3]) seen.push([(across + .5) / width, (down + .5) / height]);
              }
              return seen;
            }"""
        )
        boxes = [page.locator(f".coronal {one}").bounding_box() for one in (".fill", ".outlines", "img")]
        assert boxes[0] == boxes[1] == boxes[2]
    for at in DRAGGED:
        assert np.linalg.norm(np.array(shares) - at, axis=1).min() < 1 / 40


def test_the_pen_that_is_put_down_paints_one_stroke_with_the_arrows(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, "?at=14,20,24") as page:
        page.get_by_label("Radius").fill("0")
        page.locator(".axial .picture").focus()
        for key in ("x", "ArrowRight", "ArrowRight", "ArrowDown", "x"):
            page.keyboard.press(key)
        saved(page)
        assert corrected.stored.revision == 1
        line = {(14, 20, 24), (14, 20, 25), (14, 20, 26), (14, 21, 26)}
        assert {tuple(place) for place in np.argwhere(corrected.added)} == line
        page.keyboard.press("e")
        page.keyboard.press(" ")
        saved(page)
        assert {tuple(place) for place in np.argwhere(corrected.added)} == line - {(14, 21, 26)}
        for key, count, revision in (("u", 4, 3), ("u", 0, 4), ("r", 4, 5), ("r", 3, 6)):
            with page.expect_response("**/strokes"):
                page.keyboard.press(key)
            saved(page)
            assert np.count_nonzero(corrected.added) == count
            assert corrected.stored.revision == revision


def test_fill_and_grow_take_what_a_click_means(browser: Browser, corrected: CorrectedRun) -> None:
    ring = np.zeros(corrected.grid.shape, np.bool_)
    ring[14, 18:23, 22:27] = True
    ring[14, 19:22, 23:26] = False
    asked = {"revision": 0, "id": "a", "reader": "x", "tool": "brush", "runs": runs_of_flags(ring)}
    with correcting(browser, corrected, "?at=14,20,24") as page:
        page.keyboard.press("f")
        page.keyboard.press(" ")
        expect(page.locator("#saved")).to_contain_text(re.compile("^The marks .*do not go all the way round"))
        page.request.post(page.url.split("?")[0] + "/strokes", data=asked)
        page.reload()
        ready(page)
        for tool in "fg":
            page.keyboard.press(tool)
            with page.expect_response("**/strokes"):
                page.keyboard.press(" ")
            saved(page)
            if tool == "f":
                assert np.count_nonzero(corrected.added) == 25
        last = corrected.stored.last
    assert last
    assert (last.tool, last.reader) == ("grow", "Jane Doe")


def test_accepting_and_rejecting_need_a_name_and_nothing_unfinished(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected, AT_UNMARKED) as page:
        page.get_by_label("Name").fill("")
        page.get_by_role("button", name="Accept").click()
        expect(page.locator("#said")).to_contain_text("Give your name first: it stands beside the decision")
        for with_keys in (True, False):
            if with_keys:
                page.locator(".axial .picture").press(" ")
            else:
                dragged(page, "axial")
            expect(page.locator("#said")).to_have_text("Give your name first: it stands beside each stroke.")
            expect(page.get_by_label("Name")).to_be_focused()
        assert corrected.stored.revision == 0
        page.get_by_label("Name").fill("Richard Roe")
        expect(page.locator("#said")).to_be_empty()
        page.get_by_role("button", name="Accept").click()
        decided(page, "Accepted by Richard Roe")
        assert page.get_by_label("Name").input_value() == "Richard Roe"
        expect(page.locator("#unfinished")).to_be_hidden()
        page.keyboard.press("2")
        page.keyboard.press(" ")
        saved(page)
        expect(page.locator("#unfinished")).to_be_visible()
        why = page.locator("#undecidable")
        for name in ("Accept", "Reject"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()
        expect(why).to_have_text(re.compile("^Accept and Reject wait: what was painted is not finished. Finish the"))
        page.keyboard.press("u")
        expect(page.get_by_role("button", name="Accept")).to_be_enabled()
        expect(why).to_have_text(WAITS)
        expect(page.locator("#unfinished")).to_be_hidden()
        page.keyboard.press("r")
        expect(page.get_by_role("button", name="Accept")).to_be_disabled()
    with correcting(browser, corrected) as page:
        expect(page.locator("#decided")).to_contain_text("What was painted is not finished", use_inner_text=True)


def test_rejecting_asks_for_a_reason_that_stands_beside_the_decision(browser: Browser, corrected: CorrectedRun) -> None:
    with correcting(browser, corrected) as page:
        page.get_by_label("Name").fill("Richard Roe")
        page.get_by_role("button", name="Reject", exact=True).click()
        reason = page.get_by_label("Reason")
        expect(reason).to_be_focused()
        reason.press("Escape")
        expect(reason).to_be_hidden()
        expect(page.locator("#decided")).to_contain_text("Not yet looked at")
        page.get_by_role("button", name="Reject", exact=True).click()
        reason.fill("  motion, \u00e0 la base. ")
        reason.press("Enter")
        decided(page, "Rejected by Richard Roe")
        expect(page.locator("#decided")).to_contain_text(": motion, \u00e0 la base.")
        expect(page.get_by_role("button", name="Reject", exact=True)).to_be_focused()
        page.goto(page.url.split("/correct")[0] + "/report")
        expect(page.locator(".readers")).to_contain_text(": motion, \u00e0 la base.")


def test_an_open_page_says_what_each_reader_decides_and_the_focus_stays(
    browser: Browser, corrected: CorrectedRun
) -> None:
    run, layer = corrected.run, MaskName.LESION
    with correcting(browser, corrected) as page:
        accept = page.get_by_role("button", name="Accept")
        accept.focus()
        accept.press("Enter")
        decided(page, "Accepted by Jane Doe")
        expect(accept).to_be_focused()
        expect(page.locator("#said")).to_have_text("The lesion mask is accepted.")
        expect(page.locator("#unread")).to_have_text("No reader has looked at the lung mask yet.")
        decide(run, layer, Decision.REJECTED, "Ann Other", datetime.now(UTC), "motion")
        decided(page, "Rejected by Ann Other")
        expect(page.locator("#rejected")).to_be_visible()
        labels = corrected.network.labels
        finish(run, Draft(layer=layer, labels=labels, revision=0, reader="Ann Other", at=datetime.now(UTC)), None)
        decided(page, "Corrected by Ann Other")
        expect(page.locator("#rejected")).to_have_count(0)
        expect(page.get_by_role("heading", name="Corrections")).to_be_visible()
        decide(run, MaskName.LUNG, Decision.ACCEPTED, "Ann Other", datetime.now(UTC))
        expect(page.locator("#unread")).to_be_empty()
        expect(accept).to_be_focused()


WAITS = "Finish waits until the mask is changed."


def test_finish_waits_until_the_mask_is_changed_and_says_so(browser: Browser, corrected: CorrectedRun) -> None:
    def greyed(*, is_greyed: bool) -> None:
        expect(finishing).to_have_attribute("aria-disabled", "true" if is_greyed else "false")
        expect(page.locator("#undecidable")).to_contain_text(WAITS if is_greyed else "Accept and Reject wait")
        expect(finishing).to_have_accessible_description(page.locator("#undecidable").inner_text())

    with correcting(browser, corrected, AT_UNMARKED) as page:
        finishing = page.get_by_role("button", name="Finish the correction")
        for number in range(2):
            greyed(is_greyed=True)
            finishing.press("Enter")
            expect(page.locator("#said")).to_have_text(WAITS)
            expect(finishing).to_be_focused()
            assert len(finished_of(corrected.run.folder, MaskName.LESION)) == number
            page.locator(".axial .picture").press("Shift+ArrowRight")
            page.keyboard.press(" ")
            saved(page)
            greyed(is_greyed=False)
            if not number:
                finishing.press("Enter")
                decided(page, "Corrected by Jane Doe")
                expect(finishing).to_be_focused()
        page.keyboard.press("u")
        greyed(is_greyed=True)


@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 1280)])
def test_axe_finds_nothing_serious_on_the_page(
    browser: Browser, corrected: CorrectedRun, scheme: str, width: int
) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; scripts/build_viewer.py fetches it (needs npm)")
    app = run_app(corrected.run.folder, source=corrected.series, reader="Jane Doe")
    size = {"width": width, "height": 800}
    with served(app) as url, opened(browser, f"{url}/correct/lesion", color_scheme=scheme, viewport=size) as page:
        ready(page)
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press(" ")
        saved(page)
        page.get_by_role("button", name="Finish the correction").click()
        expect(page.get_by_role("heading", name="Corrections")).to_be_visible()
        ready(page)
        page.locator("#overtaken").evaluate("element => { element.hidden = false; }")
        check_page(page, width)
        boxes = "[...document.querySelectorAll('.findings .scroll')].map((one) => one.scrollWidth - one.clientWidth)"
        assert page.evaluate(boxes) == [0], "the table of corrections is cut off"
    looked_at = RunsLookedAt(runs={"/x": corrected.run.folder}, is_cut=True)
    runs = Mount("/agreement", routes=agreement_routes(lambda _: looked_at, (Above(href="/", name="A"),)))
    pages = Starlette(routes=[runs, *viewer_routes(lambda _: corrected.run.folder)])
    with served(pages) as url, opened(browser, f"{url}/agreement/", color_scheme=scheme, viewport=size) as page:
        expect(page.get_by_role("link", name=re.compile("run, lesion mask"))).to_be_visible()
        expect(page.get_by_text("The latest 1 runs that readers looked at")).to_be_visible()
        check_page(page, width)


def check_page(page: Page, width: int) -> None:
    page.route("**/static/axe.min.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
    page.add_script_tag(url="/static/axe.min.js")
    found = page.evaluate("axe.run()")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_focus_stays_on_undo_and_goes_to_the_picture_when_nothing_is_left(
    browser: Browser, corrected: CorrectedRun
) -> None:
    with correcting(browser, corrected, AT_UNMARKED) as page:
        for key in ("1", "Shift+ArrowDown"):
            page.keyboard.press(key)
            with page.expect_response("**/strokes"):
                page.keyboard.press(" ")
            saved(page)
        undo = page.get_by_role("button", name="Undo")
        undo.focus()
        page.keyboard.press("Enter")
        expect(undo).to_be_enabled()
        expect(undo).to_be_focused()
        page.keyboard.press("Enter")
        expect(undo).to_be_disabled()
        expect(page.locator(".picture:focus")).to_have_count(1)
