"""A node's folder that was moved, and one that is newer than its database: nothing is lost, and no run overwritten."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import ColumnDefault, column, insert, inspect, select, table

from carina.api.result import open_run
from carina.config import NodeSettings, Settings
from carina.database import JOB, database_now, open_database
from carina.database.upgrade import migrations, upgrade_schema
from carina.jobs.listing import find_job
from carina.jobs.places import DATABASE, open_node
from carina.jobs.queue import NewJob, submit
from carina.jobs.request import new_job, submit_cohort
from carina.jobs.sources import kept_source, source_of
from carina.jobs.terms import Terms
from carina.jobs.worker import Worker
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from forked import FORKED
from reading_pipeline import READING


def settings_of(folder: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder), free_gb=0))


@pytest.fixture
def pipeline(tmp_path: Path) -> str:
    (tmp_path / "reading.yaml").write_text(READING)
    return str(tmp_path / "reading.yaml")


def write_series(folder: Path) -> Path:
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0, seed=1).volume, folder)
    return folder


def ask(settings: Settings, source: Path, pipeline: str) -> int:
    with open_node(settings).begin() as connection:
        return submit(connection, new_job(source, settings, Terms(pipeline=pipeline)), database_now(connection))


def work(settings: Settings) -> list[str]:
    """Run what waits; how each job ended, or why not."""
    engine = open_node(settings)
    Worker(settings, engine, world=FORKED).go(until_empty=True)
    with engine.connect() as connection:
        return [row.error or row.ended for row in connection.execute(select(JOB).order_by(JOB.c.id))]


def test_what_waits_is_run_where_the_folder_was_moved_to(tmp_path: Path, pipeline: str) -> None:
    old = settings_of(tmp_path / "node")
    open_node(old).dispose()
    inside = write_series(tmp_path / "node" / "incoming" / "7")
    outside = shutil.copytree(inside, tmp_path / "ct")
    assert [ask(old, source, pipeline) for source in (inside, outside, inside)] == [1, 2, 3]
    shutil.move(tmp_path / "node", tmp_path / "elsewhere")
    moved = settings_of(tmp_path / "elsewhere")
    assert work(moved) == ["healthy"] * 3
    assert not (tmp_path / "node").exists()
    with open_node(moved).connect() as connection:
        jobs = [find_job(connection, number) for number in (1, 2, 3)]
    assert [job.source for job in jobs if job] == ["incoming/7", str(outside), "incoming/7"]
    assert [open_run(tmp_path / "elsewhere" / job.folder).volume.hu.shape[0] for job in jobs if job] == [36] * 3


def test_a_cohort_within_the_folder_is_known_again_where_it_was_moved_to(tmp_path: Path, pipeline: str) -> None:
    old, moved = settings_of(tmp_path / "node"), settings_of(tmp_path / "elsewhere")
    open_node(old).dispose()
    write_series(tmp_path / "node" / "studies" / "1")
    assert submit_cohort(open_node(old), tmp_path / "node" / "studies", old, Terms(pipeline=pipeline)) == (1, 0)
    shutil.move(tmp_path / "node", tmp_path / "elsewhere")
    engine = open_node(moved)
    assert submit_cohort(engine, tmp_path / "elsewhere" / "studies", moved, Terms(pipeline=pipeline)) == (0, 1)


@pytest.mark.parametrize("asked", ["real/incoming/1", "link/incoming/1"])
def test_a_source_within_the_folder_is_kept_as_such_behind_a_link(tmp_path: Path, asked: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert kept_source(tmp_path / "link", tmp_path / asked) == "incoming/1"
    assert kept_source(tmp_path / "link", tmp_path / "reality" / "1") == str(tmp_path / "reality" / "1")


def test_a_folder_that_is_named_relative_to_where_the_node_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert kept_source(Path("node"), tmp_path / "node" / "incoming" / "1") == "incoming/1"
    engine = open_node(settings_of(Path("node")))
    with engine.begin() as connection:
        asked = NewJob(source="incoming/1", pipeline="p", memory_mb=1, cores=1)
        job = find_job(connection, submit(connection, asked, database_now(connection)))
    assert job and source_of(Path("node"), job) == tmp_path / "node" / "incoming" / "1"


def test_rows_of_an_older_node_name_what_lies_in_its_folder_relative_to_it(tmp_path: Path) -> None:
    """Of what was handed in by path, too: where the folder was is seen by the other jobs."""
    upload = f"uploads/{'a' * 32}/content"
    within = ["incoming/1", upload, "incoming/12", "studies/one"]
    without = ["/data/ct/1", "/data/uploads/mine/content", "/nodes/incoming/1", "/data/scan%.nii"]
    engine = open_database(f"sqlite:///{tmp_path}/{DATABASE}")
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0016")
    row = {"pipeline": "p", "folder": "", "state": "pending", "priority": 1, "memory_mb": 1, "cores": 1}
    with engine.begin() as connection:
        row["created_at"] = database_now(connection)
        known = {one["name"] for one in inspect(connection).get_columns("job")}
        row |= {
            one.name: one.default.arg
            for one in JOB.c
            if isinstance(one.default, ColumnDefault) and one.name in known - set(row)
        }
        rows = [row | {"source": one} for one in (*(f"/a_b/node/{one}" for one in within), *without)]
        older = table("job", *(column(name, JOB.c[name].type) for name in rows[0]))
        connection.execute(insert(older), rows)
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert list(connection.execute(select(JOB.c.source).order_by(JOB.c.id)).scalars()) == [*within, *without]


@pytest.mark.parametrize("waits", [False, True])
def test_a_run_that_the_database_does_not_know_is_set_aside(
    tmp_path: Path, pipeline: str, caplog: pytest.LogCaptureFixture, *, waits: bool
) -> None:
    """A dump that is older than the folder gives numbers away again, which are those of other jobs' runs."""
    settings, node = settings_of(tmp_path / "node"), tmp_path / "node"
    series = write_series(tmp_path / "ct")
    open_node(settings).dispose()
    if waits:
        ask(settings, series, pipeline)
    (node / "runs" / "1").mkdir(parents=True)
    (node / "runs" / "1" / "findings.json").write_text("another patient's")
    with caplog.at_level(logging.WARNING):
        assert work(settings) == (["healthy"] if waits else [])
    aside = node / "unknown" / "run-1"
    assert (aside / "findings.json").read_text() == "another patient's"
    assert (node / "runs" / "1").exists() is waits
    told = caplog.text if not waits else (node / "logs" / "job-1-1.log").read_text()
    assert f"run 1 is of a job that the database doesn't know: moved to {aside}" in told


def test_a_run_of_a_later_attempt_is_the_jobs_own(tmp_path: Path, pipeline: str) -> None:
    settings, node = settings_of(tmp_path / "node"), tmp_path / "node"
    ask(settings, write_series(tmp_path / "ct"), pipeline)
    with open_node(settings).begin() as connection:
        connection.execute(JOB.update().values(attempt=1))
    (node / "runs" / "1").mkdir(parents=True)
    (node / "runs" / "1" / "kept.txt").write_text("ours")
    assert work(settings) == ["healthy"]
    assert (node / "runs" / "1" / "manifest.json").exists()
    assert (node / "runs" / "1" / "kept.txt").exists() and not (node / "unknown").exists()
