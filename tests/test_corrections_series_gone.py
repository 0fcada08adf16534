"""Correct where the series of a run is gone: it says so, takes no stroke that can't be finished, and decides."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import update

from carina.config import RetentionSettings
from carina.database import ARRIVAL, JOB
from carina.keeping.retention import Retention
from carina.service.viewer.ways_to_correct import gone_from
from corrected_nodes import Served, correctable_job
from corrected_runs import ready, saved
from served_nodes import NOON


@pytest.fixture
def served_job(tmp_path: Path) -> Iterator[Served]:
    with correctable_job(tmp_path) as served:
        yield served


def removed(served: Served) -> None:
    """By retention, as of a node of before, which kept no series for what a reader had begun."""
    with served.node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(first_at=NOON, last_at=NOON))
        connection.execute(update(JOB).values(stopped_at=NOON, state="stopped", ended="healthy"))
    aside = served.run.folder.with_name("aside")
    served.run.folder.rename(aside)
    settings = RetentionSettings(incoming_days=1)
    assert Retention(served.node.engine, served.node.folder, settings).round() == 1
    aside.rename(served.run.folder)


def removed_while_files_resist(served: Served) -> None:
    kept = served.node.folder.parent / "kept"
    shutil.copytree(served.node.folder / "incoming", kept)
    removed(served)
    shutil.copytree(kept, served.node.folder / "incoming", dirs_exist_ok=True)


def removed_of_a_job_by_path(served: Served) -> None:
    with served.node.engine.begin() as connection:
        connection.execute(update(JOB).values(arrival_id=None))
    removed(served)


def lost(served: Served) -> None:
    shutil.rmtree(served.node.folder / "incoming")


def upload_gone(served: Served) -> None:
    with served.node.engine.begin() as connection:
        connection.execute(update(JOB).values(arrival_id=None, source="uploads/a/content"))


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a series goes, and what is said of it."""

    go: Callable[[Served], None]
    words: str


BY_RETENTION = "he series of this run was removed by retention on 20"
NOT_HERE = "he series of this run is not on this node any more, so the masks of this run can't be corrected any more"

WAYS = {
    "retention": Way(go=removed, words=BY_RETENTION),
    "retention, files resist": Way(go=removed_while_files_resist, words=BY_RETENTION),
    "retention, job by path": Way(go=removed_of_a_job_by_path, words=BY_RETENTION),
    "lost": Way(go=lost, words=NOT_HERE),
    "an upload": Way(go=upload_gone, words=NOT_HERE),
}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def page(served: Served) -> str:
    return " ".join(unescape(httpx.get(served.url).raise_for_status().text).split())


def stroke(served: Served, tool: str, revision: int) -> httpx.Response:
    runs = [9 * revision, 1] if tool in ("brush", "eraser") else []
    asked = {"revision": revision, "id": f"{tool} {revision}", "reader": "Jane Doe", "tool": tool, "runs": runs}
    return served.post("strokes", **asked, at=(1, 1, 1))


def decision(served: Served, what: str, revision: int) -> httpx.Response:
    return served.post("decision", revision=revision, reader="Jane Doe", decision=what)


def refused(answer: httpx.Response, served: Served) -> dict[str, Any]:
    """A refusal, which names no folder and is one line."""
    told: dict[str, Any] = answer.json()
    assert answer.status_code == 409, told
    assert str(served.node.folder.parent) not in told["detail"] and "incoming" not in told["detail"]
    assert "\n" not in told["detail"]
    return told


@every_way
def test_correct_says_that_the_series_is_gone_takes_no_stroke_and_decides(served_job: Served, way: Way) -> None:
    assert 'id="gone"' not in page(served_job)
    way.go(served_job)
    told = page(served_job)
    assert f"T{way.words}" in told and "send the series again, and correct the result of that." in told
    assert "What was painted before that" not in told
    for tool in ("brush", "eraser", "fill", "grow", "undo", "redo"):
        answer = refused(stroke(served_job, tool, 0), served_job)
        assert answer["code"] == "corrections.series-gone" and way.words in answer["detail"]
    assert not (served_job.run.folder / "corrections").exists()
    assert decision(served_job, "corrected", 0).json()["code"] == "corrections.unchanged"
    for what in ("accepted", "rejected"):
        assert decision(served_job, what, 0).json() == {"said": f"The lesion mask is {what}."}


@every_way
def test_strokes_of_before_are_undone_and_then_the_mask_is_decided(served_job: Served, way: Way) -> None:
    revision = served_job.paint(served_job.paint(0))
    way.go(served_job)
    assert "What was painted before that is not finished: undo it, then accept or reject the mask." in page(served_job)
    finishing = refused(decision(served_job, "corrected", revision), served_job)
    assert (finishing["code"], way.words in finishing["detail"]) == ("corrections.series-gone", True)
    accepting = refused(decision(served_job, "accepted", revision), served_job)
    assert accepting["code"] == "corrections.unfinished"
    assert way.words.partition(",")[0] in accepting["detail"]
    assert accepting["detail"].endswith(": undo the strokes, then decide.")
    for tool in ("undo", "redo", "undo", "undo"):
        answer = stroke(served_job, tool, revision).raise_for_status()
        revision = answer.json()["revision"]
    assert not answer.json()["is_unfinished"]
    assert refused(stroke(served_job, "redo", revision), served_job)["code"] == "corrections.series-gone"
    assert decision(served_job, "accepted", revision).json() == {"said": "The lesion mask is accepted."}


def test_a_finished_correction_is_gone_back_to_and_decided(served_job: Served) -> None:
    served_job.decided("corrected", revision := served_job.paint(served_job.paint(0)))
    revision = stroke(served_job, "undo", revision).json()["revision"]
    removed(served_job)
    answer = stroke(served_job, "redo", revision)
    assert answer.status_code == 200 and not answer.json()["is_unfinished"]
    revision = answer.json()["revision"]
    assert refused(stroke(served_job, "undo", revision), served_job)["code"] == "corrections.series-gone"
    assert decision(served_job, "rejected", revision).json() == {"said": "The lesion mask is rejected."}


def elsewhere(served: Served) -> Path:
    """The series where a job was submitted by its path."""
    place = served.node.folder.parent / "of old" / "chest"
    place.parent.mkdir()
    (served.node.folder / "incoming" / "1").rename(place)
    with served.node.engine.begin() as connection:
        connection.execute(update(JOB).values(arrival_id=None, source=str(place)))
    return place


def test_a_series_that_may_come_back_is_painted_on_and_finished_when_it_is_there(served_job: Served) -> None:
    place = elsewhere(served_job)
    assert 'id="gone"' not in page(served_job)
    away = place.rename(place.with_name("away"))
    words = "he series of this run is not now where it was when the job was submitted: a correction can be painted"
    assert f"T{words}" in page(served_job)
    revision = served_job.paint(0)
    finishing = refused(decision(served_job, "corrected", revision), served_job)
    assert finishing["code"] == "corrections.series-away" and words in finishing["detail"]
    away.rename(place)
    assert served_job.decided("corrected", revision) == "The lesion mask is corrected."


def emptied(place: Path) -> None:
    for file in place.iterdir():
        file.unlink()


def damaged(place: Path) -> None:
    for file in place.iterdir():
        os.truncate(file, 200)


def halved(place: Path) -> None:
    for file in sorted(place.iterdir())[::2]:
        file.unlink()


@pytest.mark.parametrize("where", ["of the node", "elsewhere"])
@pytest.mark.parametrize("harm", [emptied, damaged, halved])
def test_no_error_of_a_series_that_is_there_names_its_folder(
    served_job: Served, harm: Callable[[Path], None], where: str
) -> None:
    place = served_job.node.folder / "incoming" / "1" if where == "of the node" else elsewhere(served_job)
    revision = served_job.paint(0)
    harm(place)
    answer = decision(served_job, "corrected", revision)
    assert answer.status_code == 422, answer.text
    assert str(place.parent) not in answer.text and str(served_job.node.folder.parent) not in answer.text


@pytest.mark.parametrize(("is_deidentified", "kind"), [(True, "series"), (False, "volume file")])
def test_a_correction_that_needs_no_series_misses_none(*, is_deidentified: bool, kind: str) -> None:
    run: Any = SimpleNamespace(is_deidentified=is_deidentified, manifest=SimpleNamespace(inputs={"kind": kind}))
    how: Any = SimpleNamespace(gone=None)
    assert gone_from(how, None, run) is None  # type: ignore[arg-type]


def test_the_page_takes_no_stroke_and_what_waited_is_dropped_or_undone(browser: Browser, served_job: Served) -> None:
    """One is painted before the series goes, one on a page that was open when it went."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{served_job.url}?at=12,4,4")
        ready(page)
        page.get_by_label("Name").fill("Jane Doe")
        paint(page)
        saved(page)
        removed(served_job)
        page.locator("#panes .axial .picture").focus()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        page.keyboard.press(" ")
        asked = page.locator("#overtaken")
        expect(asked).to_contain_text(f"T{BY_RETENTION}", timeout=30_000)
        expect(asked).to_contain_text("1 stroke of yours not saved")
        page.get_by_role("button", name="drop my strokes").click()
        expect(asked).to_be_hidden()
        page.reload()
        ready(page)
        page.get_by_label("Name").fill("Jane Doe")
        expect(page.locator("#gone")).to_contain_text("What was painted before that is not finished: undo it")
        paint(page)
        expect(page.locator("#said")).to_contain_text(f"T{BY_RETENTION}")
        accept = page.get_by_role("button", name="Accept", exact=True)
        expect(accept).to_be_disabled()
        expect(page.locator("#undecidable")).to_contain_text("can't be finished any more. Undo the strokes")
        page.get_by_role("button", name="Undo").click()
        expect(accept).to_be_enabled(timeout=30_000)
        accept.click()
        expect(page.locator("#decided")).to_contain_text("Accepted by Jane Doe", timeout=30_000)
        finish = page.get_by_role("button", name="Finish the correction")
        expect(finish).to_have_attribute("aria-disabled", "true")
        expect(page.locator("#undecidable")).to_have_text("Nothing can be finished: the series of this run is gone.")


def paint(page: Page) -> None:
    page.locator("#panes .axial .picture").focus()
    page.keyboard.press(" ")
