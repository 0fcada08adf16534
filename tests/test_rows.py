"""What a row of the worklist shows is in the row: from what arrives, from files of before, from a run's end."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pydicom import dcmread
from sqlalchemy import select, text, update

from carina.api.result import Run
from carina.database import ARRIVAL, JOB, open_database
from carina.database.upgrade import migrations, upgrade_schema
from carina.jobs.execute import execute
from carina.jobs.intake import take_up
from carina.jobs.listing import Job, find_job
from carina.jobs.outcome import outcome_columns
from carina.jobs.queue import Attempt
from carina.jobs.request import new_job
from carina.measure.findings import Classification
from carina.receive.store import SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from carina.service.filling import fill_rows
from carina.service.node import RunningNode
from carina.service.pages import inputs
from carina.service.pages.worklist import WorklistAsked, worklist
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from received_files import small_ct
from served_nodes import NOON, add_job, hold, opened
from viewer_runs import posed, through_dicom, write_run

WARNING = "Two slices were missing."


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    return write_run(through_dicom(posed("plain", (24, 48, 48)), folder / "ct"), folder / "run")


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    return opened(tmp_path, '[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\n')


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    volume = chest_phantom(shape=(3, 16, 16), lesions=0, seed=5).volume
    return write_ct_series(volume, tmp_path / "ct", settings=SeriesSettings(description="Chest 1.0"))


def job_of(node: RunningNode, number: int) -> Job:
    with node.engine.connect() as connection:
        found = find_job(connection, number)
    assert found is not None
    return found


def shown(node: RunningNode) -> dict[int, str]:
    return {row.job.id: row.series for row in worklist(node, WorklistAsked())["rows"]}


def without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> object:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(inputs, "header_record", read)


def test_what_arrives_is_described_by_its_row_and_its_files_are_left_alone(
    node: RunningNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    header: dict[str, Any] = {
        "StudyDate": "20260304",
        "StudyDescription": "Thorax\0nativ",
        "SeriesDescription": "Chest 1.0",
    }
    content = small_ct("2.25.9.9", "2.25.9.1", StudyInstanceUID="2.25.9", PatientName="Secret^Name", **header)
    asked = StowRequest(origin=SentBy("scanner", "PACS@127.0.0.1"), content_type="application/dicom")
    assert store_over_the_web(node.store, asked, [content]).status == 200
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(state="complete"))
        (number,) = take_up(connection, node.settings, NOON)
        (came,) = connection.execute(select(ARRIVAL)).all()
    job = job_of(node, number)
    assert (job.described, job.study_date, job.modality) == ("2026-03-04, Chest 1.0", "2026-03-04", "CT")
    assert (job.study_uid, job.received_by) == ("2.25.9", "scanner")
    assert job.study_description.startswith("Thorax") and "Secret" not in str((job, came))
    without_files(monkeypatch)
    shutil.rmtree(node.folder / "incoming")
    assert shown(node) == {number: "2026-03-04, Chest 1.0"}
    assert fill_rows(node) == 0


def test_rows_of_before_are_filled_once_and_then_no_file_is_read(
    node: RunningNode, files: tuple[Path, ...], made_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrival = hold(node, files)
    jobs = [add_job(node, arrival, series_uid="1.2.3"), add_job(node, arrival, series_uid="1.2.3", ended="faulted")]
    shutil.copytree(made_run, node.folder / f"runs/{jobs[0]}")
    before = shown(node)
    assert (fill_rows(node, at_most=1), fill_rows(node), fill_rows(node)) == (1, 1, 0)
    without_files(monkeypatch)
    assert shown(node) == before == dict.fromkeys(jobs, "2020-01-01, Chest 1.0")
    done = job_of(node, jobs[0])
    assert (done.study_date, done.modality, done.warnings, done.first_warning) == ("2020-01-01", "CT", 1, WARNING)
    assert job_of(node, jobs[1]).warnings == 0


def test_an_upload_is_described_once_its_run_has_chosen_a_series(
    node: RunningNode, files: tuple[Path, ...], made_run: Path
) -> None:
    content = node.folder / "uploads" / ("a" * 32) / "content"
    shutil.copytree(files[0].parent, content)
    job = add_job(node, source=str(content), state="pending", ended="")
    assert fill_rows(node) == 0
    with node.engine.begin() as connection:
        connection.execute(update(JOB).values(state="stopped", ended="healthy"))
    run = shutil.copytree(made_run, node.folder / f"runs/{job}")
    manifest = run / "manifest.json"
    uid = str(dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    manifest.write_text(manifest.read_text().replace('"series_uid": "1.2.3"', f'"series_uid": "{uid}"'))
    assert fill_rows(node) == 1
    found = job_of(node, job)
    assert (found.described, found.series_uid, found.study_date) == ("2020-01-01, Chest 1.0", uid, "2020-01-01")


def test_what_is_handed_in_by_path_keeps_its_name_and_says_its_scan(
    node: RunningNode, tmp_path: Path, files: tuple[Path, ...]
) -> None:
    scan = chest_phantom(shape=(40, 192, 192), lesions=0, seed=2).volume
    write_ct_series(scan, tmp_path / "P001", settings=SeriesSettings(description="Chest 2.0"))
    asked = new_job(tmp_path / "P001", node.settings)
    assert asked.described == "P001: 2020-01-01, Chest 2.0" and asked.scan and asked.scan.study_uid
    gone = add_job(node, source=str(tmp_path / "gone"), ended="faulted")
    by_path = add_job(node, source=str(files[0].parent), series_uid="no such series")
    assert fill_rows(node) == 2
    assert (job_of(node, gone).described, job_of(node, by_path).described) == ("gone", "ct")


@pytest.mark.parametrize("found", [{}, {"COVID-19": 0.2, "non-COVID-19": 0.8}])
def test_what_a_run_came_to_is_in_its_row_when_its_job_ends(
    node: RunningNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, float]
) -> None:
    classified = Classification(uid="1.2.3", probabilities=found, not_computed="" if found else "Not classified.")
    run = Run(write_run(through_dicom(posed("plain", (24, 48, 48)), tmp_path / "ct"), tmp_path / "run", classified))
    monkeypatch.setattr("carina.jobs.execute.run", lambda *_: run)
    number = add_job(node, state="running", ended="", stopped_at=None, attempt=1, described="x")
    assert execute(node.settings, node.engine, Attempt(number, 1))
    job = job_of(node, number)
    assert (job.shown_state, job.warnings, job.first_warning) == ("healthy", 1, WARNING)
    assert job.ratio_percent == pytest.approx(run.regions[0]["ratio_percent"]) and job.ratio_percent
    assert job.is_classified is bool(found)
    assert job.described is None  # its series was not known before


def test_a_run_that_measures_nothing_has_neither_ratio_nor_class(made_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(made_run, tmp_path / "run")
    manifest = run / "manifest.json"
    manifest.write_text(manifest.read_text().replace("volume-ratio.json", "x.json").replace("classification.json", "y"))
    columns = outcome_columns(Run(run))
    assert (columns["ratio_percent"], columns["is_classified"], columns["warnings"]) == (None, None, 1)


def test_rows_of_the_version_before_say_what_their_arrivals_say(empty_database: str) -> None:
    engine = open_database(empty_database)
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0019")
        came = "'1.2', '1.3', 'scanner', '', 'queued', '', 'default', :now, :now, '', :studied, 0, 0"
        names = "series_uid, study_uid, source, sender, state, reason, project, first_at, last_at, whose_sha256"
        for studied in ("20260304101500", ""):
            given = {"now": datetime.now(UTC), "studied": studied}
            connection.execute(
                text(f"insert into arrival ({names}, studied, is_prior, is_apart) values ({came})"), given
            )
        run = "'x', 'default', 'default', '', 'stopped', 2, 1, 1, :now"
        names = "source, project, pipeline, folder, state, priority, memory_mb, cores, created_at"
        more = "series_uid, ended, destinations, attempt, crashes, retries, worker, cancel, is_prior, error_code, error"
        rest = "'', 'healthy', '[]', 0, 0, 0, '', 0, 0, '', ''"
        for number in ("1", "2", "null"):
            job = f"insert into job ({names}, {more}, arrival_id) values ({run}, {rest}, {number})"
            connection.execute(text(job), {"now": datetime.now(UTC)})
    upgrade_schema(engine)
    with engine.connect() as connection:
        rows = connection.execute(select(JOB).order_by(JOB.c.id)).all()
        kept = connection.execute(select(ARRIVAL.c.series_description)).scalars().all()
    assert [(row.study_date, row.study_uid, row.received_by) for row in rows] == [
        ("2026-03-04", "1.3", "scanner"),
        ("", "1.3", "scanner"),
        ("", "", ""),
    ]
    assert [row.described for row in rows] == [None] * 3 == [*kept, None]
    engine.dispose()
