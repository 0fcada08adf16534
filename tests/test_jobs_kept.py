"""What became of a job's files is said alike by every door: command line, REST, pages, viewer, table, comparison."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import update
from starlette.routing import Route

from carina.api.cohort_table import read_cohort_table
from carina.cli.jobs import jobs as jobs_command
from carina.config import RetentionSettings
from carina.database import ARRIVAL, JOB
from carina.errors import BadConfig
from carina.jobs.compare import compare_job
from carina.jobs.comparison import comparison_of
from carina.jobs.kept import FilesState, job_files
from carina.jobs.listing import find_job
from carina.keeping.retention import Retention
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.service.node import RunningNode
from carina.service.pages.results import _viewer
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import NOON, add_job, hold, opened, serving

WHEN = f"{datetime.now(UTC).astimezone():%Y-%m-%d}"
REMOVED = f"its run and logs were removed by retention on {WHEN}: older than 5 days."
DELETED = "its run is not in runs/1 of the node's folder, and the node did not remove it"


@dataclass(frozen=True, kw_only=True)
class Doors:
    """A served node with a healthy job 1 whose files are gone, and job 2 on a later scan of the same patient."""

    node: RunningNode
    url: str
    config: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def page(self, path: str) -> str:
        return unescape(self.get(path).text)

    def command(self, *words: str) -> str:
        done = CliRunner().invoke(jobs_command, [*words, "--config", str(self.config)])
        return done.output if done.exception is None else str(done.exception)

    def row(self) -> Mapping[str, Any]:
        table = self.config.with_name("table.csv")
        self.command("table", str(table))
        return {str(name): value for name, value in read_cohort_table(table).to_dict("records")[0].items()}


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    node = opened(tmp_path)
    for number in (1, 2):
        settings = SeriesSettings(study=f"study {number}")
        volume = chest_phantom(shape=(4, 64, 64), lesions=0, seed=number).volume
        arrival = hold(node, write_ct_series(volume, tmp_path / f"ct{number}", settings=settings))
        stopped = NOON if number == 1 else datetime.now(UTC)
        outcome = {"attempt": 1, "warnings": 2, "first_warning": "thick slices.", "ratio_percent": 3.25}
        job = add_job(node, arrival, started_at=NOON, stopped_at=stopped, described="CT", **outcome)
        _write_run(node.folder / f"runs/{job}")
        log = node.folder / f"logs/job-{job}-1.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text("done")
        with node.engine.begin() as connection:
            known = {"series_uid": f"2.25.{number}", "study_uid": f"2.25.{number}.9"}
            connection.execute(update(JOB).where(JOB.c.id == job).values(**known))
            whose = known | {"whose_sha256": "a" * 64, "studied": f"2026030{number}"}
            connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival).values(**whose))
    with serving(node) as url:
        yield Doors(node=node, url=url, config=tmp_path / "carina.toml")


def _write_run(folder: Path) -> None:
    operators = {"reader": OperatorRecord(image="x", state=State.DONE)}
    definition = DefinitionRecord(name="d", file="f", sha256="")
    folder.mkdir(parents=True)
    write_manifest(Manifest(fingerprint="", started="", definition=definition, operators=operators), folder)


def by_retention(node: RunningNode) -> None:
    assert Retention(node.engine, node.folder, RetentionSettings(runs_days=5)).round() == 1


def by_hand(node: RunningNode) -> None:
    shutil.rmtree(node.folder / "runs/1")
    (node.folder / "logs/job-1-1.log").unlink()


def set_aside(node: RunningNode) -> None:
    (node.folder / "unknown").mkdir()
    (node.folder / "runs/1").rename(node.folder / "unknown/run-1")
    (node.folder / "logs/job-1-1.log").unlink()


GONE: Mapping[FilesState, tuple[Callable[[RunningNode], None], str]] = {
    FilesState.REMOVED: (by_retention, REMOVED),
    FilesState.MISSING: (by_hand, DELETED),
    FilesState.SET_ASIDE: (set_aside, "what lay in runs/1 was moved to unknown/run-1"),
}


def viewer_doors() -> list[str]:
    """Every page, picture and download of a job's results."""
    paths = [one.path for one in _viewer().routes if isinstance(one, Route) and "GET" in (one.methods or ())]
    return [re.sub(r"\{[^}]+\}", "lesion", re.sub(r"\{\w+:int\}", "0", path)) for path in paths]


def by_commands_and_rest(doors: Doors, state: FilesState, words: str) -> None:
    assert f"files: {words}" in doors.command("show", "1")
    shown = json.loads(doors.command("show", "1", "--json"))["files"]
    assert doors.get("/api/v1/jobs/1").json()["files"] == shown
    assert (shown["state"], shown["said"].startswith(words)) == (state, True)


def by_the_pages_of_the_job(doors: Doors, _: FilesState, words: str) -> None:
    page = doors.page("/jobs/1")
    assert words[1:] in page
    assert "has not begun" not in page
    assert ">Results<" not in page
    for path in ("/series/2.25.1", "/studies/2.25.1.9"):
        assert doors.get(path).headers["location"] == "/jobs/1"


def by_every_page_of_its_results(doors: Doors, _: FilesState, words: str) -> None:
    paths = viewer_doors()
    assert {"/", "/report", "/files", "/changes", "/files/lesion", "/correct/lesion"} <= set(paths)
    for path in paths:
        answer = doors.get(f"/jobs/1/view{path}")
        assert (answer.status_code, words in unescape(answer.text)) == (404, True), path


def by_the_table(doors: Doors, state: FilesState, words: str) -> None:
    row = doors.row()
    assert (row["code"], row["reason"].startswith(words)) == (f"job.{state}", True)
    assert (row["lungs ratio_percent"], row["warnings"]) == (3.25, "thick slices. And 1 more.")
    assert row["state"] == ("done" if state is FilesState.REMOVED else "failed")


def by_the_log(doors: Doors, state: FilesState, words: str) -> None:
    log = words if state is FilesState.REMOVED else "its log is not in logs/ of the node's folder"
    assert f"job 1 has no log: {log}" in doors.command("logs", "1")
    assert f"job 1 has no log: {log}" in doors.get("/jobs/1/log").json()["detail"]


SAID_BY = (by_commands_and_rest, by_the_pages_of_the_job, by_every_page_of_its_results, by_the_table, by_the_log)


@pytest.mark.parametrize("state", GONE)
def test_every_door_says_what_became_of_the_files(doors: Doors, state: FilesState) -> None:
    assert "files:" not in doors.command("show", "1")
    assert doors.get("/api/v1/jobs/1").json()["files"] == {"state": "here", "said": "", "log_said": ""}
    assert doors.get("/series/2.25.1").headers["location"] == "/jobs/1/view/"
    lose, words = GONE[state]
    lose(doors.node)
    for said in SAID_BY:
        said(doors, state, words)


def test_a_comparison_says_which_earlier_scan_was_removed(doors: Doors) -> None:
    assert ">compare<" in doors.page("/jobs/2")
    assert ">results removed<" not in doors.page("/")
    by_retention(doors.node)
    page, worklist = doors.page("/jobs/2"), doors.page("/")
    assert f"not compared with: {REMOVED}" in page and ">compare<" not in page
    assert ">results removed<" in worklist and "/jobs/1/view/" not in worklist and "/jobs/2/view/" in worklist
    said = f"job 1 of 2026-03-01: {REMOVED}"
    assert f"There is nothing to compare with any more in {said}" in doors.page("/jobs/2/view/changes")
    asked = doors.get("/jobs/2/view/earlier/1/report")
    assert (asked.status_code, said in unescape(asked.text)) == (404, True)
    assert f"earlier scan, not compared with: {said}" in doors.command("show", "2")
    with doors.node.engine.connect() as connection:
        job = find_job(connection, 2)
        assert job is not None and comparison_of(connection, doors.node.folder, job).removed == (said,)
    with pytest.raises(BadConfig, match=re.escape(f"there is nothing to compare it with. {said}")):
        compare_job(doors.node.settings, doors.node.engine, 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"state": "pending", "ended": "", "attempt": 0}, "it has not begun: no worker has taken it."),
        ({"ended": "canceled", "attempt": 0}, "it has not begun: no worker has taken it."),
        ({"state": "running", "ended": "", "attempt": 1}, "its run has stored nothing yet."),
        ({"ended": "faulted", "attempt": 1}, "its run ended before it stored anything."),
    ],
)
def test_a_run_without_files_of_its_own_is_no_removed_one(doors: Doors, values: dict[str, Any], words: str) -> None:
    by_hand(doors.node)
    with doors.node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 1).values(**values))
        job = find_job(connection, 1)
        assert job is not None
        files = job_files(connection, doors.node.folder, job)
    assert (files.state, files.said) == (FilesState.NOT_BEGUN, words)
    assert words[1:] in doors.page("/jobs/1")
