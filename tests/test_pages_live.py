"""Pages that change under a hand: nothing that somebody uses is taken away, and nothing stays old meanwhile."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import delete, insert, update

from carina.database import JOB, PROJECT
from carina.service.node import RunningNode
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from served_nodes import NOON, add_job, hold, opened, serving

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[sources.second]
kind = "dicom"
ae_title = "SECOND"
"""

STATES: dict[str, dict[str, object]] = {
    "waiting": {"state": "pending", "ended": "", "stopped_at": None},
    "running": {"state": "running", "ended": "", "started_at": NOON, "stopped_at": None, "attempt": 1},
    "failed": {"ended": "faulted", "error_code": "series.gap", "error": "two slices are missing."},
    "done": {"ended": "healthy"},
}

ARRIVALS = count(1)

COUNTED = """
window.EventSource = class extends EventSource {
  constructor(at) {
    super(at);
    this.addEventListener("message", () => {
      document.documentElement.dataset.told = performance.now();
    });
  }
};
"""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A node of two projects."""

    node: RunningNode
    url: str
    files: Sequence[Path]


@dataclass(frozen=True, kw_only=True)
class Live:
    """An open worklist: a new job of each state in either project, and a new series in quarantine."""

    node: RunningNode
    page: Page
    arrival: int
    jobs: dict[str, int]

    def change(self, job: int, **values: object) -> None:
        with self.node.engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.id == job).values(**values))

    def row(self, job: int) -> Locator:
        return self.page.locator(f"#row-of-job-{job}")

    def arrive(self) -> int:
        """A job comes, and the page shows it."""
        job = add_job(self.node)
        expect(self.row(job)).to_be_visible()
        return job

    def told_of_one(self) -> int:
        """A job comes, and the page is told of it, but does not show it."""
        html = self.page.locator("html")
        before = html.get_attribute("data-told") or ""
        job = add_job(self.node)
        expect(html).not_to_have_attribute("data-told", before)
        assert self.row(job).count() == 0
        return job


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("live")
    node = opened(folder, SETTINGS)
    files = write_ct_series(chest_phantom(shape=(4, 64, 64), lesions=0, seed=5).volume, folder / "ct")
    with node.engine.begin() as connection:
        connection.execute(insert(PROJECT), {"name": "second", "created_at": NOON})
    with serving(node) as url:
        yield Served(node=node, url=url, files=files)


@pytest.fixture
def live(browser: Browser, served: Served) -> Iterator[Live]:
    node = served.node
    with node.engine.begin() as connection:
        connection.execute(delete(JOB))
    arrival = hold(node, served.files, state="quarantined", source=f"nobody-{next(ARRIVALS)}")
    jobs = {
        f"{state} {project}": add_job(node, None, project=project, **values)
        for project in ("default", "second")
        for state, values in STATES.items()
    }
    page = browser.new_page(viewport={"width": 1280, "height": 2400})
    page.add_init_script(COUNTED)
    page.goto(served.url)
    expect(page.locator("html")).to_have_attribute("data-told", re.compile("."))
    yield Live(node=node, page=page, arrival=arrival, jobs=jobs)
    page.close()


def test_a_choice_in_hand_stays_and_everything_else_goes_on(live: Live) -> None:
    job, other = live.jobs["waiting default"], live.jobs["waiting second"]
    choice = live.page.get_by_label(f"Priority of job {job}")
    choice.select_option("immediate")
    choice.focus()
    live.arrive()
    live.change(other, state="stopped", ended="canceled", stopped_at=NOON)
    expect(live.row(other)).to_contain_text("canceled")
    live.change(job, priority=3)
    expect(live.row(job)).to_contain_text("priority low")
    expect(choice).to_be_focused()
    expect(choice).to_have_value("immediate")


def test_a_choice_that_was_left_alone_follows_the_node(live: Live) -> None:
    job = live.jobs["waiting default"]
    choice = live.page.get_by_label(f"Priority of job {job}")
    choice.focus()
    live.change(job, priority=2)
    expect(choice).to_have_value("normal")
    expect(choice).to_be_focused()


@pytest.mark.parametrize("what", ["priority", "release"])
def test_a_press_is_a_click_whatever_comes_before_and_meanwhile(live: Live, what: str) -> None:
    page, row = live.page, live.jobs["waiting default"] if what == "priority" else live.arrival
    if what == "release":
        page.locator("#quarantine-summary").click()
    choice = page.locator(f"#choice-{what}-{row}")
    choice.select_option("low" if what == "priority" else "second")
    choice.focus()
    live.arrive()
    box = page.locator(f"#{what}-{row}").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    live.told_of_one()
    with page.expect_navigation():
        page.mouse.up()
    if what == "priority":
        expect(live.row(row)).to_contain_text("priority low")
    else:
        expect(page.get_by_role("heading", name=f"Release arrival {row}?")).to_be_visible()
        page.get_by_role("button", name="Release as second").click()
        expect(page.get_by_role("status")).to_contain_text(f"Arrival {row} is released")
        expect(page.get_by_role("link", name="Back")).to_be_focused()
        with page.expect_navigation() as reloaded:
            page.reload()
        assert reloaded.value.request.method == "GET"  # the form is not sent once more
        expect(page.get_by_role("heading", name="Worklist")).to_be_visible()
        expect(page.locator(f"#row-of-arrival-{row}")).to_have_count(0)


def test_a_press_that_was_let_go_elsewhere_keeps_nothing_back(live: Live) -> None:
    page = live.page
    page.locator(f"#cancel-{live.jobs['waiting default']}").dispatch_event("pointerdown", {"button": 0})
    coming = live.told_of_one()
    page.mouse.move(5, 5)
    expect(live.row(coming)).to_be_visible()


def test_whatever_can_be_used_is_still_the_same_when_another_row_changes(live: Live) -> None:
    page = live.page
    page.evaluate(
        "window.before = [...document.querySelectorAll('#live a, #live button, #live select, #live summary')]"
    )
    link = live.row(live.jobs["failed second"]).get_by_role("link", name="second")
    link.focus()
    live.arrive()
    live.change(live.jobs["running default"], state="stopped", ended="canceled", stopped_at=NOON)
    expect(live.row(live.jobs["running default"])).to_contain_text("canceled")
    gone = page.evaluate("before.filter((one) => !one.isConnected).map((one) => one.id)")
    assert [one for one in gone if one] == [f"cancel-{live.jobs['running default']}"]
    assert "" not in gone
    expect(link).to_be_focused()


def test_a_project_that_was_made_meanwhile_can_be_moved_to(live: Live) -> None:
    page, job = live.page, live.jobs["done default"]
    page.locator(f"#tick-job-{job}").check()
    page.locator("#move-to").select_option("second")
    with live.node.engine.begin() as connection:
        connection.execute(insert(PROJECT), {"name": "third", "created_at": NOON})
    expect(page.locator("#move-to option", has_text="third")).to_have_count(1)
    expect(page.locator("#move-to")).to_have_value("second")
    page.get_by_role("button", name="Move").click()
    expect(live.row(job)).to_contain_text("project second")


def test_who_stands_on_what_goes_away_stands_in_the_same_row(live: Live) -> None:
    job = live.jobs["waiting second"]
    live.page.get_by_label(f"Priority of job {job}").focus()
    live.change(job, state="stopped", ended="canceled", stopped_at=NOON)
    expect(live.row(job)).to_contain_text("canceled")
    assert live.page.evaluate("document.activeElement.closest('tr').id") == f"row-of-job-{job}"


def some_part(chance: random.Random) -> str:
    """A part as no page has it: some of the same elements, with and without what tells them apart."""
    rows = [
        f'<tr id="r{number}"><td>{chance.randrange(3)}<td><a href="/{chance.randrange(2)}">x</a>'
        f"{'<form id=f><input name=id><button id=b>y</button></form>' * chance.randrange(2)}</td></tr>"
        for number in chance.sample(range(6), chance.randrange(6))
    ]
    links = "".join(f'<a href="/{chance.randrange(3)}">{chance.randrange(3)}</a> ' for _ in range(chance.randrange(4)))
    section = '<section aria-labelledby="h"><h2 id="h">h</h2></section>' * chance.randrange(2)
    blocks = ["<p>one</p>", "<p class=two>two</p>", links, "<ul><li>three</ul>", section, "text", "<!-- none -->"]
    chosen = chance.sample(blocks, chance.randrange(len(blocks) + 1))
    return "\n".join([*chosen, "<table><tbody>", *rows, "</tbody></table>"])


def test_a_part_that_was_mended_is_the_part_that_was_sent(live: Live) -> None:
    chance = random.Random(7)
    parts = [some_part(chance) for _ in range(300)]
    shown = """(parts) => parts.map((part) => {
      const whole = document.createElement("div");
      whole.innerHTML = part;
      show(part);
      return [whole.innerHTML, document.getElementById("live").innerHTML];
    })"""
    for wanted, found in live.page.evaluate(shown, parts):
        assert found == wanted
