"""What nothing takes back is asked about before it is done, in words, and by keyboard as by pointer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from carina.database import ARRIVAL
from carina.receive.store import ArrivalState
from carina.service.node import RunningNode
from carina.service.pages.acting import ACTS, QUESTIONS
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import hold, opened, serving
from test_access_browser import look_over

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
pipelines = ["default", "lung-only.yaml"]
destinations = ["share", "archive"]
[sources.quiet]
kind = "dicom"
ae_title = "QUIET"
[destinations.share]
kind = "folder"
path = "{folder}/share"
[destinations.archive]
kind = "folder"
path = "{folder}/archive"
"""


class Holding:
    """A served node with a series that waits."""

    def __init__(self, node: RunningNode, url: str, folder: Path) -> None:
        self.node, self.url = node, url
        self.folder = folder
        self.arrival = self.came("quarantined")

    def came(self, state: str) -> int:
        self.folder = self.folder / "next"
        volume = chest_phantom(shape=(2, 64, 64), lesions=0, seed=5).volume
        settings = SeriesSettings(study=str(self.folder))
        return hold(self.node, write_ct_series(volume, self.folder, settings=settings), state=state)

    def state(self, arrival: int) -> tuple[str, str]:
        with self.node.engine.connect() as connection:
            row = connection.execute(select(ARRIVAL).where(ARRIVAL.c.id == arrival)).one()
        return row.state, row.source

    def press(self, **fields: object) -> httpx.Response:
        given = {"token": self.node.token, "back": "/?state=done", **fields}
        return httpx.post(f"{self.url}/act", data={name: str(value) for name, value in given.items()})


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Holding]:
    node = opened(tmp_path, SETTINGS.format(folder=tmp_path))
    with serving(node) as url:
        yield Holding(node, url, tmp_path)


@pytest.mark.parametrize("state", ["quarantined", "apart", "kept"])
def test_a_release_is_asked_about_and_only_the_answer_does_it(holding: Holding, state: str) -> None:
    arrival = holding.came(state)
    asked = holding.press(what="release", id=arrival, choice="scanner")
    assert holding.state(arrival) == (state, "scanner")
    assert asked.status_code == 200
    assert "sent to share, archive" in asked.text and "pipelines default, lung-only.yaml" in asked.text
    assert '<a href="/?state=done" autofocus aria-describedby="question">' in asked.text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked.text.partition("<main")[2]))
    done = holding.press(what="release", **{name: value for name, value in fields.items() if value})
    assert f"Arrival {arrival} is released as scanner" in done.text
    assert holding.state(arrival) == (ArrivalState.COMPLETE, "scanner")


def test_a_release_as_another_source_says_what_that_one_does(holding: Holding) -> None:
    asked = holding.press(what="release", id=holding.arrival, choice="quiet").text
    assert "source quiet, by pipeline default, and nothing is sent" in asked
    assert "2 instances from SCANNER@127.0.0.1" in asked and "No source has this AE title" in asked


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"id": 99}, 404, "There is no arrival 99."),
        ({"choice": "none"}, 404, "No source is called"),
        ({"sure": "no"}, 400, "sure: "),
        ({"token": "x"}, 403, ""),
    ],
)
def test_what_is_not_done_anyway_is_not_asked_about(
    holding: Holding, fields: dict[str, object], status: int, said: str
) -> None:
    answer = holding.press(**{"what": "release", "id": holding.arrival, "choice": "quiet", **fields})
    assert answer.status_code == status and said in answer.text
    assert "?</h1>" not in answer.text


def test_what_has_been_released_is_not_asked_about_again(holding: Holding) -> None:
    holding.press(what="release", id=holding.arrival, sure="yes")
    again = holding.press(what="release", id=holding.arrival)
    assert again.status_code == 409 and "?</h1>" not in again.text


def test_what_is_asked_about_is_done_by_a_button() -> None:
    assert QUESTIONS.keys() <= ACTS.keys()


def worklist(browser: Browser, holding: Holding, width: int = 390, theme: Literal["dark", "light"] = "light") -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    page.goto(holding.url)
    return page


def test_who_leaves_it_by_key_stands_where_they_were_and_nothing_is_done(browser: Browser, holding: Holding) -> None:
    page = worklist(browser, holding)
    release = page.locator(f"#release-{holding.arrival}")
    release.press("Enter")
    leave = page.get_by_role("link", name="Leave it as it is")
    expect(leave).to_be_focused()
    expect(leave).to_have_accessible_description(re.compile("by pipelines default, lung-only.yaml.* sent to share"))
    expect(page).to_have_title(f"Release arrival {holding.arrival}? - Carina")
    page.keyboard.press("Enter")
    expect(release).to_be_focused()
    assert holding.state(holding.arrival)[0] == "quarantined"
    page.close()


def test_by_keys_alone_it_is_released_and_a_reload_asks_nothing_again(browser: Browser, holding: Holding) -> None:
    other = holding.came("quarantined")
    page = worklist(browser, holding)
    page.locator(f"#choice-release-{holding.arrival}").select_option("quiet")
    page.locator(f"#release-{holding.arrival}").press("Enter")
    expect(page.get_by_role("link", name="Leave it as it is")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Release as quiet")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text(f"Arrival {holding.arrival} is released as quiet")
    assert holding.state(holding.arrival) == ("complete", "quiet")
    expect(page.locator("a:focus")).to_be_visible()  # the way back
    page.keyboard.press("Enter")
    expect(page.locator(f"#row-of-arrival-{other}")).to_be_visible()
    expect(page.locator(f"#release-{other}")).to_be_focused()
    page.close()


def test_a_reload_of_the_question_leads_back(browser: Browser, holding: Holding) -> None:
    page = worklist(browser, holding)
    page.locator(f"#release-{holding.arrival}").click()
    expect(page.get_by_role("heading", name=f"Release arrival {holding.arrival}?")).to_be_visible()
    expect(page).to_have_url(f"{holding.url}/")
    with page.expect_navigation() as reloaded:
        page.reload()
    assert reloaded.value.request.method == "GET"
    expect(page.get_by_role("heading", name="Worklist")).to_be_visible()
    page.close()


@pytest.mark.parametrize(("theme", "width"), [("dark", 390), ("light", 1280)])
def test_the_question_is_to_be_read_by_everybody(
    browser: Browser, holding: Holding, theme: Literal["dark", "light"], width: int
) -> None:
    page = worklist(browser, holding, width, theme)
    page.locator(f"#release-{holding.arrival}").click()
    expect(page.get_by_role("heading", name=f"Release arrival {holding.arrival}?")).to_be_visible()
    look_over(page, width)
    page.close()
