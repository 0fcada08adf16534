"""What readers decided stands in a job's row, is listed by, taken in after a crash, and leads to the next case."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from access_nodes import guarded
from carina.api.result import Run
from carina.cli.jobs import jobs
from carina.corrections.decisions import LONGEST_REJECTION, decide, readers_state
from carina.corrections.finish import Draft, finish
from carina.corrections.masks import MaskName
from carina.corrections.reviewed import agreement, reviewed
from carina.corrections.standing import Decision
from carina.database import JOB, open_database, upgrade_schema
from carina.database.upgrade import migrations
from carina.jobs.decided import catch_up_readings, note_reading
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import Job, find_job, list_jobs
from carina.jobs.reading import Decided, Reading, await_reader, leave_unread, leave_without_masks, next_to_read
from carina.service.node import RunningNode
from carina.service.pages.state_words import READING_WORDS
from carina.service.viewer.found import readers_words
from served_nodes import NOON, add_job, opened, serving
from viewer_runs import posed, through_dicom, write_run

HALF_PAST = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    phantom = through_dicom(posed("plain", (24, 48, 48)), folder / "ct")
    return write_run(replace(phantom, lesion=replace(phantom.lesion, names={1: "COVID-19 lesion"})), folder / "run")


@pytest.fixture
def node(tmp_path: Path, made_run: Path) -> RunningNode:
    """Three jobs whose results wait for a reader."""
    node = opened(tmp_path)
    for _ in range(3):
        job = add_job(node, reading="unread")
        shutil.copytree(made_run, node.folder / f"runs/{job}")
    return node


@pytest.fixture
def served(node: RunningNode) -> Iterator[str]:
    with serving(node) as url:
        yield url


def run_of(node: RunningNode, job: int) -> Run:
    return Run(node.folder / f"runs/{job}")


def job_of(node: RunningNode, job: int) -> Job:
    with node.engine.connect() as connection:
        found = find_job(connection, job)
    assert found is not None
    return found


def numbers(node: RunningNode, reading: Reading) -> list[int]:
    with node.engine.connect() as connection:
        return [job.id for job in list_jobs(connection, JobFilter(reading=reading)).jobs]


def say(url: str, job: int, decision: str, reader: str, layer: str = "lesion", reason: str = "") -> None:
    asked = {"revision": 0, "reader": reader, "decision": decision, "reason": reason}
    httpx.post(f"{url}/jobs/{job}/view/correct/{layer}/decision", json=asked, timeout=60).raise_for_status()


def test_a_decision_stands_on_the_worklist_and_in_the_interface(node: RunningNode, served: str) -> None:
    say(served, 1, "accepted", "Ann")
    say(served, 1, "rejected", "Bob")
    say(served, 1, "accepted", "Bob", layer="lung")
    job = job_of(node, 1)
    assert (job.reading, job.readers) == (Reading.REJECTED, 2)
    said = [(one.layer, one.decision, one.reader) for one in job.decisions]
    assert said == [("lung", "accepted", "Bob"), ("lesion", "rejected", "Bob"), ("lesion", "accepted", "Ann")]
    page = httpx.get(f"{served}/?reading=rejected").text
    assert "lesion rejected by Bob" in page and "2 readers" in page
    assert '<span class="state rejected">lesion rejected</span>' in page
    assert 'id="job-1"' in page and 'id="job-2"' not in page
    (told,) = httpx.get(f"{served}/api/v1/jobs?reading=rejected").json()["jobs"]
    assert (told["id"], told["reading"], told["decisions"][0]["reader"]) == (1, "rejected", "Bob")
    assert [one["id"] for one in httpx.get(f"{served}/api/v1/jobs?reading=unread").json()["jobs"]] == [3, 2]
    assert httpx.get(f"{served}/?reading=read").status_code == 400


def test_a_rejected_mask_s_page_says_what_became_of_what_was_sent(node: RunningNode, served: str) -> None:
    page = f"{served}/jobs/1/view/correct/lesion"
    assert "neither called back" not in httpx.get(page).text
    say(served, 1, "rejected", "Ann")
    told = httpx.get(page).text
    assert "what was sent is neither called back nor marked where it went" in told
    assert "Sent of this run: nothing: this job has no destination." in told
    assert "left out of the data list" not in httpx.get(page.replace("lesion", "lung")).text


def test_the_reason_of_a_rejection_stands_wherever_the_decision_does(node: RunningNode, served: str) -> None:
    say(served, 1, "rejected", "Bob", reason=" motion\nat the <base>. ")
    say(served, 2, "accepted", "Bob", reason="none is kept of what is accepted")
    (one,) = job_of(node, 1).decisions
    assert one.reason == "motion at the <base>" and not job_of(node, 2).decisions[0].reason
    for place in ("/", "/jobs/1/view/", "/jobs/1/view/report", "/jobs/1/view/correct/lesion", "/agreement/"):
        assert "motion at the &lt;base&gt;" in httpx.get(served + place, timeout=60).text, place
    assert readers_words(readers_state(run_of(node, 1))) == "lesion rejected (motion at the <base>)"
    too_long = {"revision": 0, "reader": "Bob", "decision": "rejected", "reason": "x" * (LONGEST_REJECTION + 1)}
    assert httpx.post(f"{served}/jobs/1/view/correct/lesion/decision", json=too_long).status_code == 400


def test_runs_without_masks_wait_for_nobody(node: RunningNode) -> None:
    bare, gone = add_job(node, reading="unread"), add_job(node, reading="unread")
    (node.folder / f"runs/{bare}/steps").mkdir(parents=True)
    decide(run_of(node, 1), MaskName.LESION, Decision.ACCEPTED, "Ann", NOON)
    catch_up_readings(node.engine, node.folder)
    assert [leave_without_masks(node.engine, node.folder) for _ in range(2)] == [1, 0]
    assert numbers(node, Reading.UNREAD) == [gone, 3, 2] and not job_of(node, bare).reading


def test_the_last_word_about_a_mask_holds(node: RunningNode, served: str) -> None:
    say(served, 2, "rejected", "Ann")
    say(served, 2, "accepted", "Ann")
    assert job_of(node, 2).reading == Reading.ACCEPTED
    assert len(job_of(node, 2).decisions) == 1


def test_a_mask_nobody_decided_about_holds_nothing_up(node: RunningNode, served: str) -> None:
    note_reading(node.own, 2, run_of(node, 2))
    assert job_of(node, 2).reading == Reading.UNREAD
    say(served, 2, "accepted", "Ann", layer="lung")
    assert job_of(node, 2).reading == Reading.ACCEPTED


def test_the_next_to_read_is_the_one_below_then_the_newest_then_none(node: RunningNode, served: str) -> None:
    client = httpx.Client(base_url=served)
    assert client.get("/jobs/2/next").headers["location"] == "/jobs/1/view/"
    assert client.get("/jobs/1/next?page=correct").headers["location"] == "/jobs/3/view/correct/lesion"
    assert 'href="/jobs/2/next"' in client.get("/jobs/2/view/").text
    assert 'href="/jobs/2/next?page=correct"' in client.get("/jobs/2/view/correct/lesion").text
    for job in (1, 2):
        say(served, job, "accepted", "Ann")
    assert client.get("/jobs/3/next").headers["location"] == "/projects/default?reading=unread"
    say(served, 3, "accepted", "Ann")
    assert "No result waits for a reader." in client.get("/jobs/3/next", follow_redirects=True).text


def test_the_next_to_read_is_of_the_same_project(node: RunningNode) -> None:
    other = add_job(node, reading="unread", project="other")
    with node.engine.connect() as connection:
        assert next_to_read(connection, 1, "default") == 3
        assert next_to_read(connection, other, "other") is None


def test_a_reader_of_another_project_is_led_nowhere(tmp_path: Path) -> None:
    with guarded(tmp_path) as served:
        answer = served.person("reader").get("/jobs/987/next")
        assert answer.status_code == 404


def test_what_was_decided_before_a_crash_is_taken_in_once(node: RunningNode) -> None:
    decide(run_of(node, 2), MaskName.LESION, Decision.REJECTED, "Ann", NOON)
    assert job_of(node, 2).reading == Reading.UNREAD
    assert (catch_up_readings(node.engine, node.folder), catch_up_readings(node.engine, node.folder)) == (1, 0)
    assert job_of(node, 2).reading == Reading.REJECTED
    decide(run_of(node, 2), MaskName.LESION, Decision.ACCEPTED, "Ann", HALF_PAST)
    assert catch_up_readings(node.engine, node.folder) == 1
    assert (numbers(node, Reading.ACCEPTED), numbers(node, Reading.UNREAD)) == ([2], [3, 1])


def test_a_row_has_the_ratio_with_the_corrections_that_hold(node: RunningNode, tmp_path: Path) -> None:
    run = run_of(node, 2)
    draft = Draft(layer=MaskName.LESION, labels=np.zeros_like(run.lesion.labels), revision=1, reader="Ann", at=NOON)
    finish(run, draft, None)
    assert [catch_up_readings(node.engine, node.folder) for _ in range(2)] == [1, 0]
    assert job_of(node, 2).reader_ratio_percent == 0.0
    with node.engine.begin() as connection:  # as a database from before the column has it
        connection.execute(text("update job set reader_ratio_percent = null"))
    assert [catch_up_readings(node.engine, node.folder) for _ in range(2)] == [1, 0]
    said = CliRunner().invoke(jobs, ["list", "--config", str(tmp_path / "carina.toml")])
    assert "0 corrected (network none)" in said.output
    decide(run, MaskName.LESION, Decision.REJECTED, "Ann", HALF_PAST)
    note_reading(node.own, 2, run)
    assert job_of(node, 2).reader_ratio_percent is None


@pytest.mark.parametrize(
    ("since", "counted", "words"),
    [
        (None, Decision.CORRECTED, "corrected"),
        (Decision.ACCEPTED, Decision.CORRECTED, "correction accepted"),
        (Decision.REJECTED, Decision.REJECTED, "correction rejected"),
    ],
)
def test_a_correction_is_one_whatever_was_decided_of_it_since_and_every_list_says_the_same(
    node: RunningNode, served: str, tmp_path: Path, since: Decision | None, counted: Decision, words: str
) -> None:
    run = run_of(node, 2)
    corrected_by_ann(run, since)
    with node.engine.begin() as connection:  # as it was stored by a node that did not tell whose mask was accepted
        old = [{"layer": "lesion", "decision": since or "corrected", "reader": "Ann", "at": HALF_PAST.isoformat()}]
        values = {"reading": since or "corrected", "decisions": json.dumps(old)}
        connection.execute(JOB.update().where(JOB.c.id == 2).values(**values))
    assert [catch_up_readings(node.engine, node.folder) for _ in range(2)] == [1, 0]
    listing = ["list", "--reading", counted.value, "--config", str(tmp_path / "carina.toml")]
    assert f"lesion {counted}" in CliRunner().invoke(jobs, listing).output
    check_listed_once(served, counted, f"lesion {words} by Ann")
    assert readers_words(readers_state(run)).startswith(f"lesion {words}")
    found = list(reviewed(run.folder))
    assert agreement(found, MaskName.LESION).counts == {one: int(one is counted) for one in Decision}
    page = httpx.get(f"{served}/agreement/", timeout=60).text
    assert f'<td data-name="{counted.capitalize()}"><span>1</span>' in page and words.capitalize() in page


@pytest.mark.parametrize("since", [None, Decision.ACCEPTED, Decision.REJECTED])
def test_the_page_of_a_job_says_of_readers_what_its_row_does(
    node: RunningNode, served: str, since: Decision | None
) -> None:
    assert ">to read</span>" in httpx.get(f"{served}/jobs/1").text
    corrected_by_ann(run_of(node, 2), since)
    note_reading(node.own, 2, run_of(node, 2))
    row = httpx.get(served).text.partition('id="row-of-job-2"')[2].partition("</tr>")[0]
    page = httpx.get(f"{served}/jobs/2").text
    by = row.partition('<td data-name="Readers">')[2].partition("</td>")[0]
    assert "by Ann" in by and f"<dt>Readers</dt><dd>{by}</dd>" in page
    ratio = "<b>0 %</b> of the lungs marked, corrected by a reader"
    assert [ratio in row, ratio in page] == [since is not Decision.REJECTED] * 2


def corrected_by_ann(run: Run, since: Decision | None) -> None:
    """All of the lesion is erased, and that then decided about."""
    draft = Draft(layer=MaskName.LESION, labels=np.zeros_like(run.lesion.labels), revision=1, reader="Ann", at=NOON)
    finish(run, draft, None)
    if since:
        decide(run, MaskName.LESION, since, "Ann", HALF_PAST)


def check_listed_once(url: str, counted: Decision, line: str) -> None:
    """Job 2 is listed by one of the readings, on the worklist as in the interface."""
    for reading in Decision:
        is_it = reading is counted
        told = httpx.get(f"{url}/api/v1/jobs?reading={reading}").json()["jobs"]
        assert [(one["id"], one["decisions"][0]["correction"]) for one in told] == [(2, 1)] * is_it
        page = httpx.get(f"{url}/?reading={reading}").text
        assert [f'<span class="state {counted}">lesion {counted}</span>' in page, line in page] == [is_it] * 2


def test_a_run_whose_journal_is_damaged_keeps_no_other_from_being_taken_in(node: RunningNode) -> None:
    for job in (1, 2):
        decide(run_of(node, job), MaskName.LESION, Decision.ACCEPTED, "Ann", NOON)
    journal = node.folder / "runs/1/corrections/decisions"
    journal.write_bytes(b"no record\n" + journal.read_bytes())
    assert catch_up_readings(node.engine, node.folder) == 1
    assert numbers(node, Reading.ACCEPTED) == [2]


def test_what_is_superseded_fetched_or_removed_waits_for_nobody(node: RunningNode) -> None:
    later = add_job(node, supersedes=1)
    prior = add_job(node, is_prior=1)
    with node.engine.begin() as connection:
        await_reader(connection, later)
        await_reader(connection, prior)
        leave_unread(connection, 2)
    assert numbers(node, Reading.UNREAD) == [later, 3]


def test_a_state_beside_it_is_the_healthy_one_or_finds_nothing(node: RunningNode) -> None:
    with node.engine.connect() as connection:
        healthy = list_jobs(connection, JobFilter(states=["healthy"], reading="unread")).jobs
        assert len(healthy) == 3
        assert list_jobs(connection, JobFilter(states=["faulted"], reading="unread")).jobs == ()


def test_results_of_an_earlier_version_wait_for_a_reader(tmp_path: Path) -> None:
    from alembic import command

    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0013")
        columns = "source, pipeline, folder, state, ended, priority, memory_mb, cores, created_at, is_prior, supersedes"
        for ended, is_prior, supersedes in (
            ("healthy", 0, "null"),
            ("healthy", 0, "1"),
            ("healthy", 1, "null"),
            ("faulted", 0, "2"),
        ):
            row = f"'/in', 'default', '', 'stopped', '{ended}', 0, 1, 1, '2026-01-01', {is_prior}, {supersedes}"
            defaults = "series_uid, project, attempt, crashes, retries, worker, cancel, error_code, error, destinations"
            values = f"{row}, '', 'default', 1, 0, 0, '', 0, '', '', '[]'"
            connection.execute(text(f"insert into job ({columns}, {defaults}) values ({values})"))
    upgrade_schema(engine)
    with engine.connect() as connection:
        found = connection.execute(JOB.select().order_by(JOB.c.id)).all()
    assert [row.reading for row in found] == ["", "unread", "", ""]


def test_a_run_without_a_lesion_says_so(node: RunningNode, served: str) -> None:
    phantom, folder = posed("plain", (24, 48, 48)), node.folder / "runs/1"
    shutil.rmtree(folder)
    write_run(replace(phantom, lesion=replace(phantom.lesion, labels=np.zeros_like(phantom.lesion.labels))), folder)
    told = httpx.get(f"{served}/jobs/1/view/").text
    assert '<p id="lesions">No lesion was marked. The images open at the slice with the most lung.</p>' in told
    linked = httpx.get(f"{served}/jobs/1/view/?at=lesion-1")
    assert linked.status_code == 200 and "There is no lesion-1: this run has no marked lesion." in linked.text


@pytest.mark.parametrize(
    ("reading", "said", "words"),
    [
        ("unread", [], "unread"),
        ("unread", [("lesion", "accepted", 0)], "unread"),  # about a mask that was made again since
        ("accepted", [("lesion", "accepted", 0)], "lesion accepted"),
        ("accepted", [("lung", "accepted", 0), ("lesion", "accepted", 0)], "lesion and lung accepted"),
        ("rejected", [("lung", "accepted", 0), ("lesion", "rejected", 1)], "lesion rejected"),
        ("corrected", [("lung", "accepted", 0), ("lesion", "accepted", 1)], "lesion corrected"),
        ("", [], ""),
    ],
)
def test_what_was_decided_names_the_masks(
    node: RunningNode, reading: str, said: list[tuple[str, str, int]], words: str
) -> None:
    decisions = tuple(
        Decided(layer=layer, decision=Decision(one), correction=number, reader="Ann", at=NOON)
        for layer, one, number in said
    )
    assert msgspec.structs.replace(job_of(node, 1), reading=reading, decisions=decisions).read_words == words


def test_every_reading_has_its_words() -> None:
    assert set(READING_WORDS) == set(Reading)
    assert {one.value for one in Decision} == {one.value for one in Reading if one is not Reading.UNREAD}
