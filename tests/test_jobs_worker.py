"""Workers with real processes: runs end in the table and the ledger; kills and standstills cost an attempt, no job."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from pydicom import dcmread
from sqlalchemy import Engine, insert, select, update

from carina.api import open_run
from carina.config import DicomSource, FolderDestination, NodeSettings, ObjectKind, Settings
from carina.database import ARRIVAL, DELIVERY, JOB, database_now, open_database, upgrade_schema
from carina.jobs.listing import Job, list_jobs
from carina.jobs.places import log_of
from carina.jobs.queue import NewJob, cancel, submit
from carina.jobs.worker import LOST_AFTER, Worker
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from forked import FORKED
from reading_pipeline import READING
from waiting import wait_until

LUNGS = (
    READING
    + """
- name: lungs
  container: {image: carina/ai-lung}
  input: [{from: dicom-reader, path: /input}]
  output: [{path: /output}]
- name: lung-seg
  container: {image: carina/dicom-seg-writer}
  input: [{from: lungs, path: /input}, {path: /dcm}]
  output: [{path: /output, name: dicom}]
"""
)

NAMED = ("archive", "pdf", "gone")

WORKER = """
import sys, msgspec
from carina.config import Settings
from carina.database import open_database
from carina.jobs.worker import Worker
print("ready", flush=True)
settings = msgspec.json.decode(sys.stdin.readline(), type=Settings)
engine = open_database(settings.node.database)
Worker(settings, engine, name=sys.argv[1]).go(until_empty=True)
"""


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of this process look at the table often, and what they let wait is due at once."""
    monkeypatch.setattr("carina.jobs.worker.PAUSE_S", 0.1)
    monkeypatch.setattr("carina.jobs.queue.FIRST_PAUSE", timedelta(0))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=1).volume, folder)
    return folder


@pytest.fixture
def settings(node_database: str, tmp_path: Path) -> Settings:
    (tmp_path / "reading.yaml").write_text(READING)
    node = NodeSettings(folder=str(tmp_path / "node"), database=node_database, memory_gb=8, cores=4)
    return Settings(node=node, destinations={"archive": FolderDestination(path=str(tmp_path / "archive"))})


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = open_database(settings.node.database)
    upgrade_schema(made)
    yield made
    made.dispose()


def put(engine: Engine, settings: Settings, series: Path, count: int = 1, **more: object) -> None:
    reading = str(Path(settings.node.folder).parent / "reading.yaml")
    known = {"source": str(series), "pipeline": reading, "memory_mb": 100, "cores": 1} | more
    with engine.begin() as connection:
        for _ in range(count):
            submit(connection, NewJob(**known), database_now(connection))  # type: ignore[arg-type]


def jobs(engine: Engine) -> list[Job]:
    with engine.connect() as connection:
        return list(reversed(list_jobs(connection).jobs))


def log(settings: Settings, job: Job) -> str:
    return log_of(settings, job.id, job.attempt).read_text()


def test_what_arrived_is_run_and_its_objects_are_in_the_ledger_for_each_destination(
    tmp_path: Path, series: Path
) -> None:
    folder, lungs = tmp_path / "node", tmp_path / "lungs.yaml"
    lungs.write_text(LUNGS)
    settings = Settings(
        node=NodeSettings(folder=str(folder), database=f"sqlite:///{tmp_path}/node.sqlite"),
        sources={"scanner": DicomSource(ae_title="CARINA", pipelines=(str(lungs),), destinations=NAMED)},
        destinations={
            "archive": FolderDestination(path=str(tmp_path / "archive")),
            "pdf": FolderDestination(path=str(tmp_path / "pdf"), takes=(ObjectKind.PDF,)),
        },
    )
    engine = open_database(settings.node.database)
    upgrade_schema(engine)
    with engine.begin() as connection:
        now = database_now(connection)
        uid = str(dcmread(next(series.iterdir()), stop_before_pixels=True).SeriesInstanceUID)
        row = {"series_uid": uid, "study_uid": "1", "source": "scanner", "sender": "CT1", "reason": ""}
        connection.execute(insert(ARRIVAL), row | {"state": "complete", "first_at": now, "last_at": now})
    (folder / "incoming").mkdir(parents=True)
    (folder / "incoming" / "1").symlink_to(series, target_is_directory=True)
    Worker(settings, engine).go(until_empty=True)
    (job,) = jobs(engine)
    assert (job.shown_state, job.attempt, job.arrival_id, job.destinations) == ("healthy", 1, 1, NAMED)
    run = open_run(folder / job.folder)
    assert len(run.dicom) == 1
    with engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.state)).scalar_one() == "queued"
        rows = connection.execute(select(DELIVERY)).all()
    assert {(folder / row.path) in run.dicom for row in rows} == {True}
    assert sorted((row.destination, row.state) for row in rows) == [("archive", "waiting"), ("gone", "waiting")]
    assert "research use only" in log(settings, job)


def test_one_bad_job_holds_up_no_other(settings: Settings, engine: Engine, series: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put(engine, settings, tmp_path / "empty")
    put(engine, settings, series, pipeline="no-such-pipeline")
    put(engine, settings, series, 2)
    Worker(settings, engine, world=FORKED).go(until_empty=True)
    assert [(job.shown_state, job.error_code) for job in jobs(engine)] == [
        ("faulted", "series.none-found"),
        ("faulted", "definition.unknown"),
        ("healthy", ""),
        ("healthy", ""),
    ]


def test_a_job_whose_process_cannot_be_started_waits_and_is_tried_again(
    settings: Settings, engine: Engine, series: Path
) -> None:
    logs = Path(settings.node.folder) / "logs"
    logs.parent.mkdir()
    logs.write_text("no log can be opened below a file, as on a full disk")
    put(engine, settings, series)
    worker = Worker(settings, engine)
    until(worker, lambda: jobs(engine)[0].retries == 1, worker.stopping.set)
    (job,) = jobs(engine)
    assert (job.state, job.crashes, job.error_code) == ("pending", 0, "job.not-started")
    assert "its process could not be started (" in job.error


def until(worker: Worker, met: Callable[[], bool], does: Callable[[], None]) -> None:
    """Let a worker go until its queue is empty; once ``met``, do something, once."""
    done = False

    def watch() -> None:
        nonlocal done
        if not done and met():
            done = True
            does()

    worker.go(until_empty=True, watch=watch)
    assert done


def test_a_running_job_is_canceled(settings: Settings, engine: Engine, series: Path) -> None:
    put(engine, settings, series, pipeline="default")
    worker = Worker(settings, engine, world=FORKED, lost_after=timedelta(seconds=6))  # it looks every half second

    def ask() -> None:
        with engine.begin() as connection:
            assert cancel(connection, 1, database_now(connection))

    until(worker, lambda: bool(worker.running), ask)
    (job,) = jobs(engine)
    assert (job.shown_state, job.crashes) == ("canceled", 0)
    assert (job.error_code, job.error) == ("job.canceled", "canceled: asked for."), "as of one that waited"


def test_a_worker_that_is_stopped_gives_its_jobs_back(settings: Settings, engine: Engine, series: Path) -> None:
    put(engine, settings, series, 2)
    worker = Worker(settings, engine, world=FORKED)
    worker.go(watch=lambda: worker.stopping.set() if worker.running else None)
    assert [(job.shown_state, job.crashes, job.worker) for job in jobs(engine)] == [("pending", 0, "")] * 2
    Worker(settings, engine, world=FORKED).go(until_empty=True)
    assert [job.shown_state for job in jobs(engine)] == ["healthy"] * 2


def test_kills_at_random_moments_lose_no_job(settings: Settings, engine: Engine, series: Path) -> None:
    rng = random.Random(4)
    put(engine, settings, series, 3)
    worker = Worker(settings, engine, world=FORKED)
    due: dict[tuple[int, int], float] = {}
    killed = 0

    def watch() -> None:
        nonlocal killed
        crashed = {job.id: job.crashes for job in jobs(engine)}
        for one in worker.running:
            dies = due.setdefault((one.attempt.job_id, one.attempt.number), time.monotonic() + rng.uniform(0, 0.6))
            if crashed[one.attempt.job_id] < 2 and one.process.poll() is None and time.monotonic() >= dies:
                one.process.kill()
                killed += 1

    worker.go(until_empty=True, watch=watch)
    assert killed
    assert [job.shown_state for job in jobs(engine)] == ["healthy"] * 3
    for job in jobs(engine):
        assert open_run(Path(settings.node.folder) / job.folder).volume.hu.shape == (36, 200, 200)


def start_workers(settings: Settings, *names: str) -> list[subprocess.Popen[bytes]]:
    """Workers in processes of their own, which go together once each is ready."""
    program, pipe = [sys.executable, "-c", WORKER], subprocess.PIPE
    started = [subprocess.Popen([*program, name], stdin=pipe, stdout=pipe, start_new_session=True) for name in names]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == b"ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write(msgspec.json.encode(settings) + b"\n")
        one.stdin.flush()
    return started


def let_be_lost(engine: Engine, worker: str) -> None:
    """As if a worker had been silent for as long as it takes to be given up."""
    with engine.begin() as connection:
        heard = {"heartbeat_at": database_now(connection) - 2 * LOST_AFTER}
        connection.execute(update(JOB).where(JOB.c.worker == worker).values(**heard))


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Until something is so, as long as a process makes progress towards it."""
    wait_until(what, process)


def test_a_worker_that_is_killed_loses_no_job(settings: Settings, engine: Engine, series: Path) -> None:
    put(engine, settings, series, 2)
    (doomed,) = start_workers(settings, "doomed")
    wait_for(lambda: any(job.worker == "doomed" for job in jobs(engine)), doomed)
    doomed.kill()
    doomed.wait()
    let_be_lost(engine, "doomed")
    Worker(settings, engine, name="other", world=FORKED).go(until_empty=True)
    assert [job.shown_state for job in jobs(engine)] == ["healthy"] * 2
    assert {job.worker for job in jobs(engine)} <= {"doomed", "other"}


def test_a_node_that_is_killed_and_started_takes_its_jobs_over_at_once(
    settings: Settings, engine: Engine, series: Path
) -> None:
    put(engine, settings, series)
    (doomed,) = start_workers(settings, "")
    wait_for(lambda: jobs(engine)[0].state == "running", doomed)
    doomed.kill()
    doomed.wait()
    rounds: list[str] = []
    worker = Worker(settings, engine, world=FORKED)
    worker.go(until_empty=True, watch=lambda: rounds.append(jobs(engine)[0].error_code))
    assert rounds[0] == "job.worker-lost"
    (job,) = jobs(engine)
    assert (job.shown_state, job.attempt, job.crashes, job.retries) == ("healthy", 2, 0, 1)


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in found.split()]


def test_a_worker_that_stood_still_changes_nothing_when_it_wakes(
    settings: Settings, engine: Engine, series: Path
) -> None:
    put(engine, settings, series)
    (frozen,) = start_workers(settings, "frozen")
    wait_for(lambda: bool(children(frozen.pid)), frozen)
    standing = [frozen.pid, *children(frozen.pid)]
    for pid in standing:
        os.kill(pid, signal.SIGSTOP)
    let_be_lost(engine, "frozen")
    woken: list[int] = []

    def wake() -> None:
        if not woken and jobs(engine)[0].worker == "other":
            woken.extend(standing)
            for pid in standing:
                os.kill(pid, signal.SIGCONT)

    Worker(settings, engine, name="other", world=FORKED).go(until_empty=True, watch=wake)
    frozen.wait()
    assert woken
    (job,) = jobs(engine)
    assert (job.shown_state, job.worker) == ("healthy", "other")
    assert job.attempt > 1
    with engine.connect() as connection:
        assert len(connection.execute(select(JOB)).all()) == 1


def test_four_workers_share_a_queue_of_which_one_is_killed_for_good(
    postgresql: str, settings: Settings, engine: Engine, series: Path
) -> None:
    if not settings.node.database.startswith("postgresql"):
        pytest.skip("SQLite is for the workers of one node")
    put(engine, settings, series, 6)
    settings = msgspec.structs.replace(settings, node=msgspec.structs.replace(settings.node, cores=1))
    workers = start_workers(settings, "w0", "w1", "w2", "w3")
    wait_for(lambda: any(job.worker == "w0" for job in jobs(engine)), workers[0])
    workers[0].kill()
    workers[0].wait()
    let_be_lost(engine, "w0")
    codes = [worker.wait() for worker in workers]
    assert codes == [-signal.SIGKILL, 0, 0, 0]
    assert [job.shown_state for job in jobs(engine)] == ["healthy"] * 6
    assert len({job.worker for job in jobs(engine)}) >= 3
