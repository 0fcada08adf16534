"""A run's folder that an earlier attempt's process holds while it stands still: the job waits, nothing is counted."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from sqlalchemy import Connection, Engine, select

from carina.config import NodeSettings, Settings
from carina.database import JOB, open_database, upgrade_schema
from carina.jobs import execute as execute_module
from carina.jobs.attempt_process import EXECUTE
from carina.jobs.execute import execute
from carina.jobs.holder import PROCESSES
from carina.jobs.listing import Job, list_jobs
from carina.jobs.queue import MOST_RETRIES, Attempt, JobEnd, NewJob, Room, claim, stop, submit
from carina.pipeline.folder import LOCK, opened

ROOM = Room(1000, 4)
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(node_database: str, tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(tmp_path), database=node_database, memory_gb=8, cores=4))


@pytest.fixture
def engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A node with one job, tried once, whose run does nothing but open its folder."""
    made = open_database(settings.node.database)
    upgrade_schema(made)
    with made.begin() as connection:
        submit(connection, NewJob(source="x", pipeline="default", memory_mb=1, cores=1), NOW)
        connection.execute(JOB.update().values(attempt=1))

    def run(source: object, folder: Path, how: object) -> SimpleNamespace:
        with opened(folder, 0):
            return SimpleNamespace()

    monkeypatch.setattr(execute_module, "run", run)

    def end_well(connection: Connection, attempt: Attempt, *_: object) -> bool:
        return stop(connection, attempt, JobEnd.HEALTHY, NOW)

    monkeypatch.setattr(execute_module, "_end_well", end_well)
    monkeypatch.setattr(execute_module, "database_now", lambda connection: NOW)
    yield made
    made.dispose()


def attempted(settings: Settings, engine: Engine) -> tuple[Job, float]:
    """The job after one more attempt, and for how many seconds it waits then."""
    with engine.begin() as connection:
        connection.execute(JOB.update().values(not_before=None))
        claimed = claim(connection, "other", ROOM, ROOM, NOW)
    assert claimed is not None
    assert execute(settings, engine, claimed[0])
    with engine.connect() as connection:
        (job,) = list_jobs(connection).jobs
        until = connection.execute(select(JOB.c.not_before)).scalar_one()
    return job, (until - NOW) / timedelta(seconds=1) if until else 0.0


def test_a_job_whose_folder_is_held_elsewhere_waits_however_long_that_takes(settings: Settings, engine: Engine) -> None:
    folder = Path(settings.node.folder, "runs", "1")
    folder.mkdir(parents=True)
    pauses = []
    with FileLock(folder / LOCK):
        for _ in range(2 * MOST_RETRIES):
            job, pause = attempted(settings, engine)
            assert (job.state, job.error_code, job.crashes, job.retries) == ("pending", "output.busy", 0, 0)
            assert "End the worker that stands still." in job.error
            pauses.append(pause)
    assert pauses == [10, 20, 40] + [60] * (2 * MOST_RETRIES - 3)
    job, _ = attempted(settings, engine)
    assert job.shown_state == "healthy"


@contextmanager
def standing_still(folder: Path, attempt: Attempt) -> Iterator[subprocess.Popen[bytes]]:
    """The process of an attempt that holds a run's folder, and was stopped (SIGSTOP)."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    command = [*EXECUTE, str(attempt.job_id), str(attempt.number)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    process.send_signal(signal.SIGSTOP)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(not (PROCESSES / "self" / "fd").exists(), reason="only Linux says what a process has open")
def test_what_an_earlier_attempt_left_standing_here_is_ended(settings: Settings, engine: Engine) -> None:
    with standing_still(Path(settings.node.folder, "runs", "1"), Attempt(1, 1)) as process:
        job, _ = attempted(settings, engine)
        assert (job.state, job.crashes, job.retries) == ("pending", 0, 0)
        assert f"an earlier attempt ({process.pid}) stood still" in job.error
        assert process.wait() == -signal.SIGKILL
    job, _ = attempted(settings, engine)
    assert job.shown_state == "healthy"


@pytest.mark.parametrize("attempt", [Attempt(2, 1), Attempt(1, 2), Attempt(1, 3)], ids=["another job", "this", "later"])
def test_nothing_but_an_earlier_attempt_of_the_job_is_ended(
    settings: Settings, engine: Engine, attempt: Attempt
) -> None:
    with standing_still(Path(settings.node.folder, "runs", "1"), attempt) as process:
        job, _ = attempted(settings, engine)
        assert job.error_code == "output.busy"
        assert process.poll() is None


def test_an_earlier_attempt_that_holds_another_folder_is_left_alone(settings: Settings, engine: Engine) -> None:
    folder = Path(settings.node.folder)
    with (
        standing_still(folder / "other-node" / "runs" / "1", Attempt(1, 1)) as process,
        standing_still(folder / "runs" / "1", Attempt(2, 1)),
    ):
        job, _ = attempted(settings, engine)
        assert job.error_code == "output.busy"
        assert process.poll() is None
