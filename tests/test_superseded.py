"""A result in whose place another run came says so on each of its pages, and leads there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from carina.database import JOB, read_only
from carina.jobs.listing import find_job
from carina.jobs.superseding import successor_of
from carina.service.node import RunningNode
from corrected_runs import ready
from served_nodes import NOON, add_job, hold, opened, serving
from test_access_browser import look_over
from viewer_runs import posed, through_dicom, write_run

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
"""
OF_A_RUN = ("view/", "view/report", "view/changes", "view/files", "view/correct/lesion", "view/correct/lung", "")
HEALTHY = "holds more instances of this series, and counts in place of this one."


@dataclass(frozen=True, kw_only=True)
class Halved:
    """A node with a job on half of a series."""

    node: RunningNode
    url: str
    job: int
    rest: list[Path]

    def add(self, supersedes: int, **values: object) -> int:
        """A job on an instance more of the series."""
        return add_job(self.node, hold(self.node, [self.rest.pop()]), supersedes=supersedes, **values)

    def end(self, job: int, ended: str) -> None:
        with self.node.engine.begin() as connection:
            values = {"state": "stopped", "ended": ended, "stopped_at": NOON}
            connection.execute(update(JOB).where(JOB.c.id == job).values(**values))

    def said(self, page: str) -> str:
        """What a page of the first job says of the one in its place."""
        text = httpx.get(f"{self.url}/jobs/{self.job}/{page}".rstrip("/") + "/" * page.endswith("/")).text
        found = re.search(r"<b>Superseded:</b>.*?</p>", text)
        return unescape(found[0]) if found else ""


@pytest.fixture
def halved(tmp_path: Path) -> Iterator[Halved]:
    phantom = through_dicom(posed("plain", (12, 32, 32)), tmp_path / "ct")
    files = sorted((tmp_path / "ct").glob("*.dcm"))
    node = opened(tmp_path, SETTINGS)
    job = add_job(node, hold(node, files[:6]), folder="", reading="unread")
    write_run(phantom, node.folder / f"runs/{job}")
    node.is_recovered.set()
    with serving(node) as url:
        yield Halved(node=node, url=url, job=job, rest=files[6:])


def test_each_page_of_a_superseded_run_says_so_and_leads_to_the_latest(halved: Halved) -> None:
    assert {halved.said(page) for page in OF_A_RUN} == {""}
    later = halved.add(halved.job)
    for page in OF_A_RUN:
        assert re.search(rf'<a href="/jobs/{later}">job {later}</a> {HEALTHY}', halved.said(page), re.IGNORECASE), page
    last = halved.add(later)
    assert all(f'href="/jobs/{last}"' in halved.said(page) for page in OF_A_RUN)
    assert "Superseded" not in httpx.get(f"{halved.url}/jobs/{last}").text


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("", "runs on more instances of this series, and has not ended yet."),
        ("healthy", HEALTHY),
        ("faulted", "was to run on more instances of this series, and failed."),
        ("canceled", "was to run on more instances of this series, and was canceled."),
    ],
)
def test_what_became_of_the_other_run_is_said(halved: Halved, ended: str, words: str) -> None:
    halved.add(halved.job, ended=ended, state="stopped" if ended else "running")
    assert {
        halved.said(page).partition("</a> ")[2].partition("</p>")[0].partition(" What is")[0] for page in OF_A_RUN
    } == {words}


def test_a_job_of_another_pipeline_or_project_is_in_nobodys_place(halved: Halved) -> None:
    halved.add(halved.job, pipeline="another")
    other = halved.add(halved.job, project="other")
    with read_only(halved.node.engine) as connection:
        job = find_job(connection, halved.job)
        assert job
        found = successor_of(connection, job)
        assert found and found.id == other
    with read_only(halved.node.seen_in(frozenset({job.project})).engine) as connection:
        assert successor_of(connection, job) is None


def test_open_pages_say_it_when_it_happens(halved: Halved, browser: Browser) -> None:
    def shown(path: str) -> Page:
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(f"{halved.url}/jobs/{halved.job}/{path}")
        return page

    pages = {path: shown(path) for path in OF_A_RUN if "lung" not in path}
    correct = pages["view/correct/lesion"]
    ready(correct)
    later = halved.add(halved.job, ended="", state="running")
    for page in pages.values():
        expect(page.locator("main")).to_contain_text(
            re.compile(rf"Superseded: job {later} runs on more", re.IGNORECASE)
        )
    expect(correct.locator("#superseded")).to_contain_text("What is painted and decided here is not taken over there.")
    halved.end(later, "healthy")
    for page in pages.values():
        expect(page.locator("main")).to_contain_text(HEALTHY)
        expect(page.locator(".superseded, .refused").first).to_be_in_viewport()
        page.close()


@pytest.mark.parametrize(("scheme", "width"), [("dark", 390), ("light", 1280)])
def test_what_an_open_page_says_is_to_be_read_and_reached_by_key(
    halved: Halved, browser: Browser, scheme: Literal["dark", "light"], width: int
) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto(f"{halved.url}/jobs/{halved.job}/view/?at=6,16,16")
    picture = page.locator(".axial .picture")
    picture.focus()
    later = halved.add(halved.job)
    link = page.get_by_role("link", name=f"Job {later}", exact=True)
    expect(link).to_be_visible()
    expect(picture).to_be_focused()
    look_over(page, width)
    link.press("Enter")
    expect(page.get_by_role("heading", name=f"Job {later}")).to_be_visible()
    page.close()


def test_a_page_that_nobody_sees_holds_no_connection_and_says_it_when_it_is_seen(
    halved: Halved, browser: Browser
) -> None:
    """A browser has six to a server, all its tabs together."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "superseded" in request.url else None)
    page.add_init_script(
        "Object.defineProperty(document, 'visibilityState', { get: () => window.isSeen ? 'visible' : 'hidden' });"
    )
    page.goto(f"{halved.url}/jobs/{halved.job}/view/report")
    later = halved.add(halved.job)
    turned = "isSeen => { window.isSeen = isSeen; document.dispatchEvent(new Event('visibilitychange')); }"
    for count in (1, 2):
        page.evaluate(turned, False)
        assert len(asked) == count - 1
        with page.expect_request("**/superseded*"):
            page.evaluate(turned, True)
        expect(page.locator("#live")).to_contain_text(f"Job {later}")
        assert len(asked) == count
    page.close()
