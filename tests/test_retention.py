"""Retention: what is old or over its room goes, what waits, runs or is not confirmed stays, whatever is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select, update

from carina.config import RetentionSettings
from carina.database import ARRIVAL, AUDIT, JOB, REMOVAL, SCHEMA, open_database
from carina.jobs.queue import removal_words, retry
from carina.keeping.removal import open_removals
from carina.keeping.retention import Retention
from databases import new_database, postgresql_server
from kept_nodes import TODAY, KeptArrival, KeptJob, dangling, fill, folders

DONE = KeptJob(deliveries=("confirmed", "confirmed"))


@contextmanager
def node_with(arrivals: Sequence[KeptArrival], place: Path, address: str = "") -> Iterator[Engine]:
    engine = open_database(address or f"sqlite:///{place}/node.sqlite")
    SCHEMA.create_all(engine)
    fill(engine, place, arrivals)
    yield engine
    engine.dispose()


def retention(engine: Engine, folder: Path, free: int = 10**15, **keys: float) -> Retention:
    return Retention(engine, folder, RetentionSettings(**keys), clock=lambda: TODAY, free=lambda _: free)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield ""
        return
    with postgresql_server() as server:
        yield new_database(server, "kept")


def test_what_is_done_goes_by_age_on_either_database(tmp_path: Path, address: str) -> None:
    arrivals = [KeptArrival(series="1", jobs=(DONE,)), KeptArrival(series="2", days=1, jobs=(KeptJob(days=1),))]
    with node_with(arrivals, tmp_path, address) as engine:
        assert retention(engine, tmp_path, incoming_days=5, runs_days=5).round() == 2
        assert (folders(tmp_path, "incoming"), folders(tmp_path, "runs")) == ({2}, {2})
        assert [file.name for file in (tmp_path / "logs").iterdir()] == ["job-2-1.log"]
        with engine.connect() as connection:
            trail = connection.execute(select(AUDIT.c.who, AUDIT.c.action, AUDIT.c.subject)).all()
            states = connection.execute(select(ARRIVAL.c.state, ARRIVAL.c.reason).order_by(ARRIVAL.c.id)).all()
        assert sorted(map(tuple, trail)) == [
            ("retention", "removed", "instances of arrival 1: older than 5 days"),
            ("retention", "removed", "run of job 1: older than 5 days"),
        ]
        assert states == [("removed", "removed: older than 5 days."), ("queued", "")]


def test_without_settings_nothing_goes(tmp_path: Path) -> None:
    with node_with([KeptArrival(days=4000, jobs=(DONE,))], tmp_path) as engine:
        assert retention(engine, tmp_path).round() == 0


WAITING = {
    "arrives": KeptArrival(state="arriving"),
    "is complete": KeptArrival(state="complete"),
    "is in quarantine": KeptArrival(state="quarantined"),
    "is apart": KeptArrival(state="apart"),
    "has a job that waits": KeptArrival(jobs=(KeptJob(state="pending"),)),
    "has a job that runs": KeptArrival(jobs=(DONE, KeptJob(state="running"))),
    "has a job that faulted": KeptArrival(jobs=(KeptJob(ended="faulted"),)),
    "has an object that waits": KeptArrival(jobs=(KeptJob(deliveries=("confirmed", "waiting")),)),
    "has an object that is sent": KeptArrival(jobs=(KeptJob(deliveries=("sent",)),)),
    "has an object that failed": KeptArrival(jobs=(KeptJob(deliveries=("confirmed", "failed")),)),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_stays_however_full_the_disk(tmp_path: Path, what: str) -> None:
    with node_with([WAITING[what]], tmp_path) as engine:
        done_runs = sum(job is DONE for job in WAITING[what].jobs)
        hungry = retention(engine, tmp_path, 0, incoming_days=1, runs_days=1, incoming_gb=1e-9, runs_gb=1e-9, free_gb=1)
        assert hungry.round() == done_runs  # of a job that is over, the run alone
        assert folders(tmp_path, "incoming") == {1}


def test_what_more_of_a_series_is_still_coming_for_stays(tmp_path: Path) -> None:
    with node_with([KeptArrival(jobs=(DONE,)), KeptArrival(state="arriving", days=0)], tmp_path) as engine:
        assert retention(engine, tmp_path, incoming_days=1).round() == 0


def test_what_is_given_up_goes_only_when_that_is_asked_for(tmp_path: Path) -> None:
    arrivals = [KeptArrival(state="quarantined", days=40), KeptArrival(jobs=(KeptJob(ended="faulted", days=40),))]
    with node_with(arrivals, tmp_path) as engine:
        assert retention(engine, tmp_path, incoming_days=5, runs_days=5).round() == 0
        assert retention(engine, tmp_path, incoming_days=5, runs_days=5, abandoned_days=50).round() == 0
        assert retention(engine, tmp_path, incoming_days=5, runs_days=5, abandoned_days=30).round() == 3
        with engine.begin() as connection:
            assert not retry(connection, 1)  # its files are gone
            assert removal_words(connection, 1) == "retention removed what came in for it: send the series again."
            connection.execute(delete(REMOVAL).where(REMOVAL.c.kind == "incoming"))
            assert removal_words(connection, 1).startswith("retention removed its run: run its input anew as another")
            assert removal_words(connection, 99) == ""


@pytest.mark.parametrize(("limits", "left"), [({"incoming_gb": 5e-6}, {3, 4}), ({"free_gb": 1.0}, set())])
def test_the_oldest_goes_first_until_there_is_room(tmp_path: Path, limits: dict[str, float], left: set[int]) -> None:
    arrivals = [KeptArrival(series=str(days), days=days, state="kept") for days in (40, 30, 20, 10)]
    with node_with(arrivals, tmp_path) as engine:
        retention(engine, tmp_path, 0, **limits).round()
        assert folders(tmp_path, "incoming") == left
        assert not dangling(engine, tmp_path)


def test_room_is_made_of_incoming_and_runs_and_no_more_than_needed(tmp_path: Path) -> None:
    arrivals = [KeptArrival(series="1", days=40, state="kept"), KeptArrival(series="2", days=5, jobs=(DONE,))]
    with node_with(arrivals, tmp_path) as engine:
        free = iter([0, 0, 0, 10**10])
        made = Retention(engine, tmp_path, RetentionSettings(free_gb=1), clock=lambda: TODAY, free=lambda _: next(free))
        assert made.round() == 2
        assert (folders(tmp_path, "incoming"), folders(tmp_path, "runs")) == ({2}, set())


def test_a_run_that_was_run_again_is_measured_again(tmp_path: Path) -> None:
    arrivals = [KeptArrival(jobs=(KeptJob(ended="healthy", days=days),)) for days in (3, 2)]
    with node_with(arrivals, tmp_path) as engine:
        used = sum(file.lstat().st_size for run in (tmp_path / "runs").iterdir() for file in run.rglob("*"))
        keeper = retention(engine, tmp_path, runs_gb=(used + 5000) / 1e9)
        assert keeper.round() == 0
        (tmp_path / "runs" / "2" / "more").write_bytes(bytes(9000))
        with engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.id == 2).values(attempt=JOB.c.attempt + 1))
        assert keeper.round() == 1
        assert folders(tmp_path, "runs") == {2}


def test_what_was_of_use_in_the_last_hour_stays(tmp_path: Path) -> None:
    with node_with([KeptArrival(days=0.02, state="kept")], tmp_path) as engine:
        assert retention(engine, tmp_path, 0, incoming_days=0.001, free_gb=1).round() == 0


def test_files_that_resist_hold_up_no_other_and_go_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrivals = [KeptArrival(series=str(number), state="kept") for number in range(2)]
    remove = shutil.rmtree

    def resist(place: Path) -> None:
        if place.name == "1":
            raise PermissionError(13, "Permission denied")
        remove(place)

    with node_with(arrivals, tmp_path) as engine:
        with patch("carina.keeping.removal.shutil.rmtree", resist):
            assert retention(engine, tmp_path, incoming_days=1).round() == 2
        assert folders(tmp_path, "incoming") == {1}
        assert "incoming 1 is to be removed and its files resist (Permission denied)" in caplog.text
        retention(engine, tmp_path).round()
        assert folders(tmp_path, "incoming") == set()


JOBS = st.builds(
    KeptJob,
    state=st.sampled_from(["pending", "running", "stopped", "stopped", "stopped"]),
    ended=st.sampled_from(["healthy", "healthy", "faulted", "canceled"]),
    days=st.sampled_from([0.0, 3.0, 20.0, 60.0]),
    deliveries=st.lists(st.sampled_from(["confirmed"] * 4 + ["waiting", "sent", "failed"]), max_size=3).map(tuple),
)
ARRIVALS = st.builds(
    KeptArrival,
    series=st.sampled_from("123"),
    state=st.sampled_from(["arriving", "complete", "queued", "queued", "queued", "quarantined", "apart", "kept"]),
    days=st.sampled_from([0.0, 3.0, 20.0, 60.0]),
    jobs=st.lists(JOBS, max_size=2).map(tuple),
)
LIMITS = st.fixed_dictionaries(
    {
        "incoming_days": st.sampled_from([0.0, 10.0]),
        "runs_days": st.sampled_from([0.0, 10.0]),
        "incoming_gb": st.sampled_from([0.0, 1e-9]),
        "runs_gb": st.sampled_from([0.0, 1e-9]),
        "free_gb": st.sampled_from([0.0, 1.0]),
        "abandoned_days": st.sampled_from([0.0, 30.0]),
    }
)


class Killed(BaseException):
    """What ends the process in the test: nothing in the package catches it."""


def is_over(job: KeptJob, abandoned_days: float) -> bool:
    """By the words of the manual, said once more and independently of the queries."""
    given_up = bool(abandoned_days) and job.days > abandoned_days
    return (
        job.state == "stopped"
        and (job.ended != "faulted" or given_up)
        and all(state == "confirmed" for state in job.deliveries)
    )


def may_go(arrival: KeptArrival, others: Sequence[KeptArrival], abandoned_days: float) -> bool:
    given_up = bool(abandoned_days) and arrival.days > abandoned_days
    done = arrival.state in {"queued", "kept"} or (arrival.state in {"quarantined", "apart"} and given_up)
    coming = any(one.series == arrival.series and one.state in {"arriving", "complete"} for one in others)
    return done and not coming and arrival.days > 0 and all(is_over(job, abandoned_days) for job in arrival.jobs)


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The process ends at one of its next removals of a file."""
    steps = iter(range(step))
    unlink = os.unlink

    def counting(*arguments: object, **more: object) -> None:
        if next(steps, None) is None:
            raise Killed
        unlink(*arguments, **more)  # type: ignore[arg-type]

    with patch("os.unlink", counting), suppress(Killed):
        yield


@settings(max_examples=60, deadline=None)
@given(arrivals=st.lists(ARRIVALS, max_size=6), limits=LIMITS, kills=st.lists(st.integers(0, 8), max_size=3))
def test_of_any_node_all_that_is_due_goes_and_nothing_else(
    arrivals: list[KeptArrival], limits: dict[str, float], kills: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as place, node_with(arrivals, Path(place)) as engine:
        folder = Path(place)
        (folder / "incoming").mkdir(exist_ok=True)
        for step in kills:
            with killed_at(step):
                retention(engine, folder, 0, **limits).round()
            assert not dangling(engine, folder)
        retention(engine, folder, 0, **limits).round()
        assert not dangling(engine, folder)
        assert not open_removals(engine)
        check_left(folder, arrivals, limits)


def check_left(folder: Path, arrivals: Sequence[KeptArrival], limits: dict[str, float]) -> None:
    given_up = limits["abandoned_days"]
    goes = {number for number, one in enumerate(arrivals, 1) if is_due(one, arrivals, limits)}
    assert folders(folder, "incoming") == set(range(1, len(arrivals) + 1)) - goes
    jobs = [job for arrival in arrivals for job in arrival.jobs]
    over = {number for number, job in enumerate(jobs, 1) if is_over(job, given_up) and is_run_due(job, limits)}
    assert folders(folder, "runs") == set(range(1, len(jobs) + 1)) - over


def is_run_due(job: KeptJob, limits: dict[str, float]) -> bool:
    full = limits["runs_gb"] or limits["free_gb"]
    return job.days > 0 if full else 0 < limits["runs_days"] < job.days


def is_due(arrival: KeptArrival, arrivals: Sequence[KeptArrival], limits: dict[str, float]) -> bool:
    full = limits["incoming_gb"] or limits["free_gb"]
    old = 0 < limits["incoming_days"] < arrival.days
    return bool(full or old) and may_go(arrival, arrivals, limits["abandoned_days"])


ROUND = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from carina.config import RetentionSettings
from carina.database import open_database
from carina.keeping.retention import Retention
folder = Path(sys.argv[1])
engine = open_database(f"sqlite:///{folder}/node.sqlite")
now = datetime(2026, 6, 1, 12, tzinfo=UTC)
print("begins", flush=True)
while Retention(engine, folder, RetentionSettings(incoming_days=1, runs_days=1), clock=lambda: now).round():
    pass
"""


def test_a_process_that_is_killed_leaves_nothing_dangling(tmp_path: Path) -> None:
    arrivals = [KeptArrival(series=str(number), jobs=(DONE,)) for number in range(30)]
    chance = random.Random(7)
    with node_with(arrivals, tmp_path) as engine:
        for _ in range(3):
            with subprocess.Popen([sys.executable, "-c", ROUND, tmp_path], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"begins\n"
                time.sleep(chance.uniform(0, 0.4))
                process.send_signal(signal.SIGKILL)
            assert not dangling(engine, tmp_path)
        subprocess.run([sys.executable, "-c", ROUND, tmp_path], check=True)
        assert (folders(tmp_path, "incoming"), folders(tmp_path, "runs")) == (set(), set())
        with engine.connect() as connection:
            removals = connection.execute(select(REMOVAL)).all()
            trail = connection.execute(select(AUDIT.c.subject)).scalars().all()
        assert len(removals) == len(set(trail)) == len(trail) == 60
        assert all(row.ended_at and row.ended_at - row.begun_at < timedelta(days=1) for row in removals)
