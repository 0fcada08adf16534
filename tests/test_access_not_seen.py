"""Whoever doesn't see what is open in the browser, by a log-in elsewhere or a move, is shown nothing more of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from carina.service.changes import move_to_project
from project_nodes import Shared, shared_node

LIVE = ("/jobs/{job}", "/jobs/{job}/view/", "/jobs/{job}/view/report", "/jobs/{job}/view/files", "/projects/alpha")
STILL = "/jobs/{uploaded}/series"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared_node(tmp_path_factory.mktemp("seen")) as made:
        yield made


def come_as(context: BrowserContext, node: Shared, person: str) -> None:
    context.add_cookies([{"name": "carina", "value": node.cookies[person], "url": node.url}])


def opened(context: BrowserContext, node: Shared, *paths: str) -> list[Page]:
    held, pages = node.held["alpha"], []
    for path in paths:
        pages.append(context.new_page())
        pages[-1].goto(node.url + path.format(job=held.job, uploaded=held.uploaded))
    return pages


def come_back(page: Page) -> None:
    page.evaluate("window.dispatchEvent(new Event('focus'))")


def has_nothing_left(page: Page, before: str, now: str) -> None:
    """No name, picture or figure is on the page of what was shown to whom who was here before."""
    expect(page.locator("main")).to_contain_text(f"{now} is logged in, and does not see this page, or it is gone.")
    expect(page.locator(".who a")).to_contain_text(now)
    for shown in ("main img", "main canvas", "main table", "main dl", "main figure", "#live"):
        expect(page.locator(shown)).to_have_count(0)
    text = page.locator("html").inner_text()
    assert before not in text
    assert "alpha chest" not in text


@pytest.mark.parametrize(("before", "live"), [("reader of alpha", LIVE[:3]), ("admin of alpha", LIVE[3:])])
def test_a_page_that_is_open_shows_nothing_of_itself_to_who_logs_in_and_does_not_see_it(
    browser: Browser, node: Shared, before: str, live: tuple[str, ...]
) -> None:
    """A few at a time: a browser has six connections to a server."""
    with browser.new_context() as context:
        come_as(context, node, before)
        *pages, still, whole, other = opened(context, node, *live, STILL, "/", "/account")
        other.get_by_role("button", name="Log out", exact=True).click()
        for page in (*pages, whole):
            expect(page.locator("#connection")).to_contain_text("You are logged out.")
        for page in (*pages, still, whole):
            come_back(page)  # nobody is logged in yet
        for page in (*pages, whole):
            expect(page.locator("#connection")).to_contain_text("You are logged out.")
        come_as(context, node, "reader of bravo")
        for page in (*pages, still, pages[0]):  # the first once more: it stays as it is
            come_back(page)
            has_nothing_left(page, before.replace(" ", "."), "reader.of.bravo")
        come_back(whole)
        expect(whole.locator(".who a")).to_contain_text("reader.of.bravo")
        expect(whole.locator("#live")).to_contain_text("bravo chest")
        assert "alpha" not in whole.locator("main").inner_text()


def test_while_the_node_is_away_an_open_page_stays_and_says_so(browser: Browser, node: Shared) -> None:
    with browser.new_context() as context:
        come_as(context, node, "operator of bravo")
        page = context.new_page()
        page.goto(f"{node.url}/jobs/{node.held['bravo'].job}")
        page.route("**/jobs/**", lambda route: route.fulfill(status=503, body="{}"))
        context.clear_cookies()  # what is live is asked for again, by nobody
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#connection")).to_contain_text("The node does not answer.")
        with page.expect_response("**/jobs/**"):  # nothing is asked for any more when it is let through again
            come_back(page)
        page.unroute("**/jobs/**")
        come_as(context, node, "operator of bravo")
        expect(page.get_by_role("heading", name="Operators")).to_be_visible()
        with page.expect_event("load"):
            come_back(page)
        expect(page.locator("#connection")).to_be_empty()


def test_a_page_of_what_is_moved_away_ends_with_nothing_of_it(browser: Browser, node: Shared) -> None:
    with browser.new_context() as context:
        come_as(context, node, "operator of alpha")
        pages = opened(context, node, "/jobs/{job}", "/jobs/{job}/view/report")
        move_to_project(node.node, [node.held["alpha"].job], [], "bravo")
        for page in pages:
            page.bring_to_front()
            expect(page.locator("main")).to_contain_text("operator.of.alpha is logged in, and does not see this page")
            expect(page.locator("main table, main dl, main img, #live")).to_have_count(0)
