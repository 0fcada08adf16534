"""Tab, server and other readers while a mask is corrected: nothing that was said to be saved is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Route, expect

from carina.corrections.finish import finished_of
from carina.corrections.masks import MaskName
from corrected_runs import AT, CorrectedRun, Killable, dab, decided, disc, ready, saved


@pytest.fixture
def corrected(tmp_path: Path) -> CorrectedRun:
    return CorrectedRun("plain", tmp_path)


@pytest.fixture
def server(corrected: CorrectedRun) -> Iterator[Killable]:
    one = Killable(corrected)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    one = browser.new_context(viewport={"width": 1280, "height": 800})
    yield one
    one.close()


def test_a_server_that_is_killed_between_strokes_loses_none_and_the_page_sends_what_waited(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    server.kill()
    first = corrected.added.copy()
    assert first.any()
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press(" ")
    expect(page.locator("#saved")).to_contain_text("2 strokes not saved: the server does not answer")
    np.testing.assert_array_equal(corrected.added, first)
    server.start()
    saved(page)
    assert corrected.stored.revision == 3
    assert np.count_nonzero(corrected.added) > np.count_nonzero(first)
    page.get_by_role("button", name="Finish the correction").click()
    decided(page, "Corrected by Jane Doe")
    (finished,) = finished_of(corrected.run.folder, MaskName.LESION)
    assert finished.revision == 3


def test_a_page_becomes_whole_by_itself_once_a_killed_server_is_back(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    server.kill()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#saved")).to_contain_text("1 stroke not saved: the server does not answer")
    expect(page.locator("#trouble")).to_contain_text("It is asked for again until it comes.")
    expect(page.locator("#place")).to_have_text("What is here is not known.")
    server.start()
    saved(page)
    expect(page.locator("#trouble")).to_be_empty()
    expect(page.locator("#place")).to_contain_text(" mm")
    for plane in ("axial", "sagittal"):
        expect(page.locator(f".{plane} img")).to_have_attribute("src", re.compile(r"/slice/"))
    assert corrected.stored.revision == 2


def test_a_stroke_whose_answer_never_comes_is_sent_again_and_stored_once(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    held: list[Route] = []
    page.route("**/strokes", lambda route: held.append(route), times=1)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    saved(page)
    assert len(held) == 1
    assert corrected.stored.revision == 2


def test_a_server_that_is_killed_while_strokes_are_sent_has_each_stroke_whole(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    page.goto(f"{server.url}?at=14,20,6")
    ready(page)
    for number in range(24):
        page.keyboard.press(" ")
        page.keyboard.press("ArrowRight")
        if number % 8 == 5:
            server.kill()
            server.start()
    saved(page)
    assert corrected.stored.revision == 24
    expected = np.zeros(corrected.grid.shape, np.bool_)
    for step in range(24):
        expected |= disc(corrected.grid, "axial", (14, 20, 6 + step), 4.0)
    np.testing.assert_array_equal(corrected.added, expected & (corrected.network.labels == 0))


def test_a_tab_that_dies_with_the_server_keeps_its_strokes_for_the_next(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    page = context.new_page()
    dab(page, AT, server.url)
    server.kill()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press(" ")
    expect(page.locator("#saved")).to_contain_text("1 stroke not saved")
    page.close(run_before_unload=False)
    server.start()
    page = context.new_page()
    page.goto(server.url)
    saved(page)
    assert corrected.stored.revision == 2


def test_a_second_tab_is_told_and_paints_when_the_first_is_closed(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    first, second = context.new_page(), context.new_page()
    dab(first, AT, server.url)
    second.goto(f"{server.url}?at={','.join(map(str, AT))}")
    expect(second.locator("#saved")).to_contain_text("open in another window of this browser")
    expect(second.locator("#undecidable")).to_contain_text("this mask is open in another window")
    decisions = second.locator("[data-decision]")
    for number in range(3):
        expect(decisions.nth(number)).to_be_disabled()
    second.keyboard.press(" ")
    assert corrected.stored.revision == 1
    first.close()
    saved(second)
    expect(second.locator("[data-decision=corrected]")).to_be_enabled()
    second.keyboard.press("Shift+ArrowRight")
    second.keyboard.press(" ")
    saved(second)
    assert corrected.stored.revision == 2


def test_a_page_that_waited_for_another_begins_by_itself_once_a_killed_server_is_back(
    context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    first, second = context.new_page(), context.new_page()
    first.goto(server.url)
    ready(first)
    second.goto(f"{server.url}?at={','.join(map(str, AT))}")
    expect(second.locator("#saved")).to_contain_text("open in another window of this browser")
    server.kill()
    first.close()
    said = "Painting can't begin yet: the mask could not be read: the server does not answer. It is asked for again"
    expect(second.locator("#saved")).to_contain_text(said)
    second.keyboard.press(" ")
    expect(second.locator("#said")).to_contain_text("Painting begins once the mask is read.")
    server.start()
    ready(second)
    expect(second.locator("#said")).to_be_empty()
    second.keyboard.press(" ")
    saved(second)
    assert corrected.stored.revision == 1


@pytest.mark.parametrize("button", ["add my strokes", "drop my strokes"])
def test_another_reader_s_strokes_are_told_and_nobody_s_are_lost_silently(
    browser: Browser, context: BrowserContext, server: Killable, corrected: CorrectedRun, button: str
) -> None:
    mine = context.new_page()
    mine.goto(f"{server.url}?at={','.join(map(str, AT))}")
    ready(mine)
    mine.route("**/standing.json", lambda route: route.abort())  # it must not be told before it paints
    elsewhere = browser.new_context()
    dab(elsewhere.new_page(), (14, 20, 10), server.url)
    elsewhere.close()
    theirs = corrected.added
    mine.keyboard.press(" ")
    expect(mine.locator("#overtaken")).to_contain_text(
        "changed elsewhere by Jane Doe since it was read here. 1 stroke of yours not saved. Painting waits"
    )
    expect(mine.locator("[data-decision=corrected]")).to_be_disabled()
    expect(mine.locator("#undecidable")).to_contain_text("Finish wait: this mask was changed elsewhere. Choose first")
    mine.keyboard.press(" ")
    expect(mine.locator("#said")).to_contain_text("Painting waits: this mask was changed elsewhere")
    np.testing.assert_array_equal(corrected.added, theirs)
    mine.get_by_role("button", name=button).click()
    expect(mine.locator("#overtaken")).to_be_hidden()
    saved(mine)
    assert corrected.stored.revision == (2 if button.startswith("add") else 1)
    assert (corrected.added >= theirs).all()
    expect(mine.locator("#said")).to_be_empty()


def test_every_stroke_is_kept_of_two_who_paint_at_once(
    browser: Browser, context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    """Whatever a page asks of the server meanwhile: the mask that another changed, or a deed of one's own."""
    mine, elsewhere = context.new_page(), browser.new_context()
    mine.goto(f"{server.url}?at={','.join(map(str, AT))}")
    ready(mine)
    theirs = elsewhere.new_page()
    held: list[Route] = []
    for what in ("mask.json", "strokes"):
        mine.route(f"**/{what}", lambda route: held.append(route), times=1)
        with mine.expect_request(f"**/{what}"):
            if what == "mask.json":
                dab(theirs, (14, 20, 10), server.url)
            else:
                mine.keyboard.press("u")
        for key in (" ", "Shift+ArrowRight", " ", "Shift+ArrowDown", "x", "ArrowRight"):
            mine.keyboard.press(key)
        expect(mine.locator("#saved")).to_contain_text("2 strokes not saved")
        held.pop().continue_()
        expect(mine.locator("#saved")).to_have_text(re.compile("^All strokes saved .* The brush is down.$"))
        for key in ("ArrowRight", "x"):
            mine.keyboard.press(key)
        saved(mine)
    elsewhere.close()
    (strokes,) = corrected.stored.open_strokes(0)
    assert (strokes.painted, corrected.stored.revision) == (1 + 3 + 3 - 1, 1 + 3 + 3 + 1)


def test_whose_strokes_wait_is_said_and_seen_while_others_paint(
    browser: Browser, context: BrowserContext, server: Killable, corrected: CorrectedRun
) -> None:
    rob = context.new_page()
    rob.goto(f"{server.url}?at={','.join(map(str, AT))}")
    ready(rob)
    rob.get_by_label("Name").fill("rob")
    elsewhere = browser.new_context()
    rita = elsewhere.new_page()
    rita.goto(f"{server.url}?at=14,20,10")
    ready(rita)
    rita.get_by_label("Name").fill("rita")
    rita.locator(".picture").first.press(" ")
    saved(rita)
    expect(rita.locator("#whose")).to_have_text("1 stroke of yours.")
    expect(rob.locator("#whose")).to_contain_text(
        "1 stroke of rita. In this mask are strokes of rita: Finish names each"
    )
    rob.locator(".picture").first.press("u")
    expect(rob.locator("#said")).to_have_text('That stroke is one of rita: press "Undo stroke of rita".')
    assert corrected.stored.revision == 1
    rob.locator(".picture").first.press("r")
    expect(rob.locator("#said")).to_have_text("There is no stroke to redo.")
    rob.locator(".picture").first.press(" ")
    saved(rob)
    expect(rob.locator("#whose")).to_contain_text("1 stroke of rita, 1 stroke of yours.")
    rob.get_by_role("button", name="Undo", exact=True).click()
    rob.get_by_role("button", name="Undo stroke of rita").click()
    expect(rob.locator("#whose")).to_have_text("")
    rob.get_by_role("button", name="Redo stroke of rita").click()
    expect(rita.locator("#whose")).to_have_text("1 stroke of yours.")
    rob.locator(".picture").first.press(" ")
    both = "1 stroke of yours, 1 stroke of rob."
    expect(rita.locator("#whose")).to_contain_text(both)
    expect(rita.locator("#whose")).to_contain_text("In this mask are strokes of rob and of yours: Finish names each")
    his = "1 stroke of rita, 1 stroke of yours."
    for key, words, his_words in (("u", "1 stroke of rob.", "1 stroke of yours."), ("r", both, his)):
        rita.locator(".picture").first.press(key)  # her own, below his
        expect(rita.locator("#whose")).to_contain_text(re.compile(f"^{re.escape(words)}"))
        expect(rob.locator("#whose")).to_contain_text(re.compile(f"^{re.escape(his_words)}"))
    rob.locator(".picture").first.press("u")
    expect(rita.locator("#whose")).to_have_text("1 stroke of yours.")
    elsewhere.close()
    rob.get_by_role("button", name="Finish the correction").click()
    decided(rob, "Corrected by rob (painted by rita)")
