"""From the first link on the console to the log-out of a reader, in a real browser and a real process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from access_nodes import PASSWORD, Guarded, guarded
from carina.config import load_settings
from carina.jobs.queue import LONGEST_PAUSE
from carina.service.serve import node_of
from served_nodes import add_job, hold, settings_of
from test_serve import started

AXE = Path(__file__).resolve().parents[1] / "web" / "axe.min.js"


def choose(page: Page, password: str) -> None:
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_label("Password once more").fill(password)
    page.get_by_role("button", name="Set password and log in").click()


def log_in(page: Page, name: str, password: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A node's process that nobody has logged in to yet: its address, the link that it printed, a job that waits."""

    url: str
    link: str
    job: int


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Fresh]:
    settings_of(tmp_path)
    file = tmp_path / "carina.toml"
    file.write_text(file.read_text().replace("[web]\n", "[web]\nlogin = true\n"))
    settings = load_settings(file, {})
    opened = node_of(settings)
    later = datetime.now(UTC) + LONGEST_PAUSE  # nobody runs it meanwhile
    job = add_job(opened, state="pending", ended="", stopped_at=None, not_before=later)
    opened.engine.dispose()
    with started(tmp_path, settings) as node:
        assert node.process.stderr is not None
        link = next(line["link"] for line in map(json.loads, node.process.stderr) if "link" in line)
        yield Fresh(url=node.url, link=link, job=job)


def invited(browser: Browser, fresh: Fresh) -> tuple[Page, str]:
    """The page of the first administrator, and the link that they give to a reader."""
    page = browser.new_context().new_page()
    page.goto(fresh.link)
    page.get_by_label("Your name here").fill("chief")
    choose(page, PASSWORD)
    expect(page.get_by_role("heading", name="Worklist")).to_be_visible()
    page.get_by_role("link", name="Users").click()
    page.get_by_label("New user's name").fill("reader.two")
    page.get_by_role("button", name="Add and show the link").click()
    return page, page.locator("#shown").inner_text()


def test_from_the_first_link_to_a_reader_who_can_not_cancel(browser: Browser, fresh: Fresh) -> None:
    admin, invitation = invited(browser, fresh)
    reader = browser.new_context().new_page()
    reader.goto(invitation)
    choose(reader, PASSWORD)
    expect(reader.get_by_text("reader.two, reader")).to_be_visible()
    expect(reader.locator(f"#job-{fresh.job}")).to_be_visible()
    expect(reader.get_by_role("button", name=re.compile("Cancel"))).to_have_count(0)
    expect(reader.get_by_role("link", name="Users")).to_have_count(0)
    token = reader.locator("input[name=token]").first.get_attribute("value") or ""
    refused = reader.request.post(f"{fresh.url}/act", form={"token": token, "what": "cancel", "id": str(fresh.job)})
    assert refused.status == 403
    assert "this needs the role operator; reader.two has the role reader." in refused.text()
    reader.goto(f"{fresh.url}/jobs/999")
    expect(reader.get_by_role("heading", name="Not there")).to_be_visible()
    reader.goto(f"{fresh.url}/users")
    expect(reader.get_by_role("heading", name="You can't see this page")).to_be_visible()
    expect(reader.locator("main")).to_contain_text("This needs the role admin")
    admin.goto(fresh.url)
    admin.get_by_role("button", name=f"Cancel job {fresh.job}").click()
    expect(admin.locator("#live")).to_contain_text("1 canceled")


def test_logging_out_and_in_again_leads_to_where_one_was(browser: Browser, fresh: Fresh) -> None:
    page, _ = invited(browser, fresh)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(f"{fresh.url}/jobs/{fresh.job}")
    log_in(page, "chief", "not the password")
    expect(page.get_by_role("alert")).to_contain_text("Name and password don't fit")
    log_in(page, "chief", PASSWORD)
    expect(page.get_by_role("heading", name=f"Job {fresh.job}")).to_be_visible()
    cookies = page.context.cookies()
    assert [(one["name"], one["httpOnly"], one["sameSite"]) for one in cookies] == [("carina", True, "Lax")]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as served:
        yield served


@pytest.mark.parametrize(("theme", "width"), [("dark", 390), ("light", 1280)])
def test_axe_finds_nothing_serious_and_nothing_runs_over_the_edge(
    browser: Browser, node: Guarded, theme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    context = browser.new_context(viewport=size, color_scheme=theme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{node.url}/login")
    log_in(page, "admin.one", "not the password")
    look_over(page, width)
    context.add_cookies([{"name": "carina", "value": node.cookies["admin"], "url": node.url}])
    page.goto(f"{node.url}/users")
    page.get_by_label("New user's name").fill(f"somebody.{theme}.{width}.".ljust(64, "w"))
    page.get_by_role("button", name="Add and show the link").click()
    invitation = page.locator("#shown").inner_text()
    pages = [f"{node.url}/{path}" for path in ("projects", "projects/default", "account")]
    for address in ("", *pages, f"{node.url}/", f"{node.url}/jobs/{node.job}", f"{node.url}/jobs/99", invitation):
        if address:
            page.goto(address)
        look_over(page, width)
    context.close()


def look_over(page: Page, width: int) -> None:
    page.wait_for_load_state("load")  # with its style sheet: after a form's answer the text can be there before it
    assert page.locator("html").evaluate("it => it.scrollWidth") <= width, page.url
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; scripts/build_viewer.py fetches it (needs npm)")
    page.route("**/static/axe.min.js", lambda route: route.fulfill(path=AXE, content_type="text/javascript"))
    page.add_script_tag(url="/static/axe.min.js")
    found = page.evaluate("axe.run()")
    serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert not serious, [(page.url, one["id"], [node["html"] for node in one["nodes"]]) for one in serious]


def test_an_open_page_says_that_one_is_logged_out_and_comes_back_after_a_log_in_elsewhere(
    browser: Browser, node: Guarded
) -> None:
    with browser.new_context() as context:
        context.add_cookies([{"name": "carina", "value": node.cookies["reader"], "url": node.url}])
        page, other = context.new_page(), context.new_page()
        page.goto(f"{node.url}/jobs/{node.job}")
        page.evaluate(
            """() => {
              const line = document.getElementById("connection");
              window.told = [];
              new MutationObserver(() => told.push(line.textContent)).observe(line, { childList: true });
            }"""
        )
        other.goto(node.url)
        other.get_by_role("button", name="Log out").click()
        expect(page.locator("#connection")).to_contain_text("You are logged out.")
        expect(page.locator("#connection").get_by_role("link", name="Log in")).to_be_in_viewport()
        assert [one for one in page.evaluate("told") if "does not answer" in one] == []
        page.evaluate("window.dispatchEvent(new Event('focus'))")  # somebody comes back, and is logged out still
        log_in(other, "reader.one", PASSWORD)
        expect(other.get_by_role("heading", name="Worklist")).to_be_visible()
        with page.expect_navigation():
            page.evaluate("window.dispatchEvent(new Event('focus'))")
        expect(page.get_by_role("heading", name=f"Job {node.job}")).to_be_visible()
        expect(page.locator("#connection")).to_be_empty()


def test_quarantine_is_folded_beside_jobs_and_stays_as_it_was_left(browser: Browser, node: Guarded) -> None:
    files = sorted((node.node.folder.parent / "ct").glob("*.dcm"))
    hold(node.node, files[:1], state="quarantined", source="nobody")
    page = browser.new_page()
    page.context.add_cookies([{"name": "carina", "value": node.cookies["operator"], "url": node.url}])
    page.goto(node.url)
    summary = page.locator("#quarantine-summary")
    expect(page.locator("#quarantine th[scope=row]")).to_contain_text("Synthetic chest", use_inner_text=False)
    expect(page.get_by_text("no source has this AE title")).to_be_hidden()
    summary.press("Enter")
    expect(page.get_by_text("no source has this AE title")).to_be_visible()
    add_job(node.node, node.arrival)
    expect(page.get_by_role("link", name="2 done")).to_be_visible()
    expect(page.get_by_text("no source has this AE title")).to_be_visible()
    page.close()
