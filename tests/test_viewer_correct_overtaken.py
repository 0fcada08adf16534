"""A mask that another reader changed since the page read it, which the page has not seen by itself yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from carina.corrections.decisions import decide
from carina.corrections.masks import MaskName
from carina.corrections.painting import Author
from carina.corrections.standing import Decision
from carina.service.local_time import local_text
from carina.service.viewer.server import run_app
from corrected_runs import CorrectedRun, saved
from test_viewer_correct_browser import AT_UNMARKED, correcting
from viewer_runs import served

_IDS = itertools.count()


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


@pytest.fixture
def rob(browser: Browser, corrected: CorrectedRun) -> Iterator[Page]:
    """The page of Rob on a mask that has a stroke of Rita's; what she does from now on it does not see by itself."""
    paint_elsewhere(corrected)
    with correcting(browser, corrected, AT_UNMARKED) as page:
        page.get_by_label("Name").fill("rob")
        page.route("**/standing.json", lambda route: route.abort())
        yield page


def rita() -> Author:
    return Author(reader="rita", at=datetime.now(UTC), id=f"rita {next(_IDS)}")


def paint_elsewhere(corrected: CorrectedRun) -> None:
    """A voxel of Rita's, far from what the page paints."""
    stored = corrected.stored
    stored.paint([2 * stored.revision, 1], 1, "brush", rita(), stored.revision)


def press(page: Page, *keys: str) -> None:
    for key in keys:
        with page.expect_response("**/strokes"):
            page.locator(".picture").first.press(key)
        saved(page)


def voxels(corrected: CorrectedRun) -> int:
    return int(np.count_nonzero(corrected.added))


def do(page: Page, deed: str) -> None:
    """A deed by the button of that name, or by a key; growing by the key that uses a tool."""
    if deed[1:]:
        page.get_by_role("button", name=deed, exact=True).click()
        return
    for key in (deed, " ") if deed == "g" else (deed,):
        page.locator(".picture").first.press(key)


def change_elsewhere(corrected: CorrectedRun, deed: str) -> int:
    """Rita paints, or takes a stroke of hers back where one would take what can be brought back; gives the revision."""
    stored = corrected.stored
    if deed in ("r", "Redo"):
        stored.undo(rita(), stored.revision, is_own=True)
    else:
        paint_elsewhere(corrected)
    return stored.catch_up()


def test_a_deed_is_asked_once_more_of_the_mask_as_it_is_by_then(rob: Page, corrected: CorrectedRun) -> None:
    for deed, way in (("u", -1), ("Undo", -1), ("r", 1), ("Redo", 1), ("g", 0)):
        rob.locator(".picture").first.press("ArrowRight")
        press(rob, " ", *("u" for _ in range(way)))
        revision, before = change_elsewhere(corrected, deed), voxels(corrected)
        with rob.expect_response(lambda answer: answer.url.endswith("/strokes") and answer.ok) as done:
            do(rob, deed)
        asked = done.value.request.post_data_json
        assert asked
        assert asked["revision"] == revision
        saved(rob)
        expect(rob.locator("#said")).to_be_empty()
        assert corrected.stored.revision == revision + 1
        assert way in (0, np.sign(voxels(corrected) - before))


def test_another_s_stroke_is_not_taken_back_unseen_and_no_old_sentence_stays(
    rob: Page, corrected: CorrectedRun
) -> None:
    for deed, line in (("Undo stroke of rita", "#saved"), ("Accept", "#said")):
        paint_elsewhere(corrected)
        revision = corrected.stored.revision
        rob.locator("[data-decision=accepted]").evaluate("button => { button.disabled = false; }")
        rob.get_by_role("button", name=deed).click()
        expect(rob.locator(line)).to_contain_text("The mask was changed elsewhere by rita")
        assert corrected.stored.revision == revision
        press(rob, " ")
        expect(rob.locator("#said")).to_be_empty()
        assert corrected.stored.revision == revision + 1
        press(rob, "u")
        expect(rob.locator("#whose")).not_to_contain_text("of yours")


def test_what_others_decided_is_shown_beside_the_choice_of_an_overtaken_page(
    rob: Page, corrected: CorrectedRun
) -> None:
    paint_elsewhere(corrected)
    rob.locator(".picture").first.press(" ")
    expect(rob.locator("#overtaken")).to_be_visible()
    decide(corrected.run, MaskName.LESION, Decision.REJECTED, "rita", datetime.now(UTC))
    rob.unroute_all()
    expect(rob.locator("#decided")).to_contain_text("Rejected by rita", timeout=15_000)
    expect(rob.locator("#overtaken")).to_be_visible()
    assert corrected.stored.revision == 2


def test_the_time_of_the_last_stroke_is_that_of_the_server(browser: Browser, corrected: CorrectedRun) -> None:
    paint_elsewhere(corrected)
    last = corrected.stored.last
    assert last
    with served(run_app(corrected.run.folder)) as url, browser.new_context(timezone_id="Pacific/Auckland") as context:
        page = context.new_page()
        page.goto(f"{url}/correct/lesion")
        expect(page.locator("#saved")).to_have_text(f"All strokes saved {local_text(last.at)[11:]}.")
