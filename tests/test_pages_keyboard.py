"""Every page by keyboard alone: Tab reaches each thing that can be used, and one sees where one is."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from access_nodes import Guarded, guarded
from carina.service.viewer.server import run_app
from corrected_runs import CorrectedRun
from served_nodes import add_job, hold
from test_access_browser import look_over
from viewer_runs import served

NODE_PAGES = (
    "",
    "jobs/1",
    "jobs/2/log",
    "projects",
    "projects/default",
    "users",
    "account",
    "agreement/",
    "api",
    "jobs/99",
)
RUN_PAGES = ("", "report", "files", "correct/lesion", "correct/lung", "files/none")

USABLE = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"

NUMBERED = """(usable) => {
  const there = [...document.querySelectorAll(usable)].filter((one) => one.checkVisibility() && !one.disabled);
  there.forEach((one, number) => { one.dataset.number = number; });
  return there.map((one) => one.outerHTML.slice(0, 160));
}"""

FOCUSED = """() => {
  const one = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(one);
  return [Number(one.dataset?.number ?? -1), outlineStyle !== "none" && parseFloat(outlineWidth) > 0];
}"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    with guarded(folder) as one:
        hold(one.node, sorted((folder / "ct").glob("*.dcm"))[:1], state="quarantined", source="nobody")
        add_job(one.node, one.arrival, attempt=1)
        (one.node.folder / "logs").mkdir(exist_ok=True)
        (one.node.folder / "logs" / "job-2-1.log").write_text("attempt 1 begins")
        yield one


@pytest.fixture(scope="module")
def run_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    corrected = CorrectedRun("plain", tmp_path_factory.mktemp("run"))
    with served(run_app(corrected.run.folder, source=corrected.series, reader="Jane Doe")) as url:
        yield url


@pytest.mark.parametrize("path", NODE_PAGES)
def test_tab_reaches_everything_on_a_page_of_the_node(browser: Browser, node: Guarded, path: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        context.add_cookies([{"name": "carina", "value": node.cookies["admin"], "url": node.url}])
        page = context.new_page()
        page.route("**/live*", lambda route: route.abort())  # what is replaced meanwhile would lose its number
        page.goto(f"{node.url}/{path}")
        check_reached(page)


@pytest.mark.parametrize("path", RUN_PAGES)
def test_tab_reaches_everything_on_a_page_of_a_run(browser: Browser, run_url: str, path: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}) as context:
        page = context.new_page()
        page.goto(f"{run_url}/{path}")
        page.wait_for_load_state("networkidle")
        check_reached(page)


LIVE = """data: <p><a href="/x">One</a> <a href="/y">Two, later</a></p>
data: <details id="held"><summary>3 held</summary></details> <button id="go">Go on</button>

"""

BEFORE = """() => {
  document.getElementById("live").innerHTML =
    '<a href="/y">Two</a><details id="held"><summary>2 held</summary></details><button id="go">Go</button>';
}"""


@pytest.mark.parametrize(("name", "after"), [("Two", "Two, later"), ("2 held", "3 held"), ("Go", "Go on")])
def test_who_stands_on_a_part_stands_on_it_when_it_is_made_anew(
    browser: Browser, node: Guarded, name: str, after: str
) -> None:
    told = threading.Event()

    def tell(route: Route) -> None:
        if told.is_set():
            route.fulfill(body=LIVE, content_type="text/event-stream")
        else:
            route.fulfill(body="retry: 50\n\n", content_type="text/event-stream")

    with browser.new_context() as context:
        context.add_cookies([{"name": "carina", "value": node.cookies["admin"], "url": node.url}])
        page = context.new_page()
        page.route("**/live*", tell)
        page.goto(f"{node.url}/jobs/1")
        page.evaluate(BEFORE)
        page.locator("#live").get_by_text(name, exact=True).focus()
        told.set()
        expect(page.locator("#live").get_by_text(after, exact=True)).to_be_focused()


def check_reached(page: Page) -> None:
    look_over(page, 390)
    page.evaluate("document.activeElement.blur()")
    there = page.evaluate(NUMBERED, USABLE)
    assert there
    reached, unseen = set(), set()
    parts_of_dates = 3 * page.locator("input[type=date]").count()  # month, day, year and calendar: each is a stop
    for _ in range(len(there) + parts_of_dates + 3):
        page.keyboard.press("Tab")
        number, is_seen = page.evaluate(FOCUSED)
        reached.add(number)
        if number >= 0 and not is_seen:
            unseen.add(number)
    assert [there[number] for number in sorted(set(range(len(there))) - reached)] == []
    assert [there[number] for number in sorted(unseen)] == []
