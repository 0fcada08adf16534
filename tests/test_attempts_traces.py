"""What an attempt leaves: a log that is no larger than it may be, and, where it died, which operator it was at."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import Engine

from carina.config import NodeSettings, Settings
from carina.database import database_now
from carina.jobs import attempt_process as starting_side
from carina.jobs.attempt_log import KEPT_OF_BEGINNING, LARGEST_LOG, LOGS, bound_log, new_log
from carina.jobs.attempt_process import attempt_process
from carina.jobs.listing import find_job
from carina.jobs.places import log_of
from carina.jobs.queue import FIRST_PAUSE, MOST_CRASHES, Attempt
from carina.jobs.worker import Worker, World
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.sections import RUNS
from databases import database_of_one_job


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.jobs.attempt_log.LARGEST_LOG", 1000)
    monkeypatch.setattr("carina.jobs.attempt_log.KEPT_OF_BEGINNING", 100)


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path) -> None:
    """The folder for logs, which a worker makes in the node's own folder."""
    (tmp_path / LOGS).mkdir()


@pytest.mark.usefixtures("_small")
def test_a_log_keeps_its_beginning_and_its_end_and_says_what_was_left_out(tmp_path: Path) -> None:
    log, left_out = tmp_path / "logs" / "job-1-1.log", 0
    new_log(log)
    with log.open("ab", buffering=0) as said:
        for word in (b"first", b"a" * 995, b"b" * 5000, b"c" * 5000, b"last"):
            said.write(word)
            left_out = bound_log(log, left_out)
    told = log.read_bytes()
    assert len(told) <= 1000 and b"\0" not in told
    assert told.startswith(b"firstaaa") and told.endswith(b"last")
    assert told.count(b" bytes were left out here: a log has 1000 at most.") == 1
    assert f"({left_out} bytes".encode() in told
    assert abs(left_out - (5 + 995 + 5000 + 5000 + 4 - len(told))) < 300, "but for the lines themselves"


def test_a_log_of_usual_length_and_one_that_is_gone_are_left_alone(tmp_path: Path) -> None:
    assert KEPT_OF_BEGINNING < LARGEST_LOG / 2
    (tmp_path / "log").write_text("some words")
    assert [bound_log(tmp_path / "log", 0), bound_log(tmp_path / "none", 0)] == [0, 0]
    assert (tmp_path / "log").read_text() == "some words" and not (tmp_path / "none").exists()


@pytest.mark.usefixtures("_small")
def test_what_a_process_prints_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By print, by the descriptor, by a program of its own; what was there before is nobody's."""
    code = "import os; print('x' * 9000, flush=True); os.write(2, b'y' * 9000); os.system('echo last')"
    monkeypatch.setattr(starting_side, "EXECUTE", (sys.executable, "-c", code))
    settings, attempt = Settings(node=NodeSettings(folder=str(tmp_path))), Attempt(1, 1)
    log = log_of(settings, 1, 1)
    new_log(log)
    log.write_text("of before")
    process = attempt_process(settings, attempt)
    assert process.wait(60) == 0
    process.terminate()
    assert log.stat().st_size == 18_006
    bound_log(log, 0)
    assert log.stat().st_size < 1000


LEAVES_A_DAEMON = """
import os, signal, sys, time
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(PLACE + ".new", "w").write(str(os.getpid()))
    os.rename(PLACE + ".new", PLACE)
    while True:
        os.write(1, b"x" * 100)
        time.sleep(0.01)
while not os.path.exists(PLACE):
    time.sleep(0.01)
"""

ENDS = {
    "well": ("", 0),
    "badly": ("os._exit(3)", 3),
    "in a crash": ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
    "when its worker is gone": ("time.sleep(600)", -signal.SIGKILL),
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard ends the process group")
@pytest.mark.parametrize("how", ENDS)
def test_what_an_attempt_leaves_behind_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    place, (ends, code) = tmp_path / "daemon", ENDS[how]
    words = (sys.executable, "-c", LEAVES_A_DAEMON.replace("PLACE", repr(str(place))) + ends)
    monkeypatch.setattr(starting_side, "EXECUTE", words)
    process = attempt_process(Settings(node=NodeSettings(folder=str(tmp_path))), Attempt(1, 1))
    assert process.stdin is not None
    process.stdin.write(b"settings\n")
    process.stdin.flush()
    while not place.exists():
        time.sleep(0.01)
    if how == "when its worker is gone":
        process.stdin.close()
    assert process.wait(60) == code
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(int(place.read_text()), 0)


class Dead:
    """A process that a signal ended, after it wrote a manifest or not."""

    stdin: IO[bytes] | None = None

    def poll(self) -> int:
        return -signal.SIGSEGV

    def wait(self, timeout: float | None = None) -> int:
        return self.poll()

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def manifest_of(**states: State) -> Manifest:
    operators = {name: OperatorRecord(image="x", state=state) for name, state in states.items()}
    definition = DefinitionRecord(name="d", file="d.yaml", sha256="")
    started = "2026-01-01T00:00:00+00:00"
    return Manifest(state=State.RUNNING, fingerprint="", started=started, definition=definition, operators=operators)


AT_WORK: Mapping[str, tuple[Any, str]] = {
    "one": ({"ct": State.DONE, "lung": State.RUNNING}, r" while operator 'lung' was at work: see the job's log."),
    "two": (
        {"lung": State.RUNNING, "lesion": State.RUNNING},
        r" while operators 'lung' and 'lesion' were at work: see the job's log.",
    ),
    "none": ({"ct": State.DONE, "lung": State.WAITING}, ": see the job's log."),
    "no manifest": (None, ": see the job's log."),
    "an earlier attempt's": ("earlier", ": see the job's log."),
    "no manifest that can be read": ("broken", ": see the job's log."),
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with database_of_one_job(tmp_path) as made:
        yield made


@pytest.mark.parametrize("case", AT_WORK)
def test_a_crash_names_the_operators_that_were_at_work(engine: Engine, tmp_path: Path, case: str) -> None:
    states, words = AT_WORK[case]
    run = tmp_path / RUNS / "1"
    run.mkdir(parents=True)
    if states == "earlier":
        write_manifest(manifest_of(lung=State.RUNNING), run)

    def start(_: Settings, attempt: Attempt) -> Dead:
        if states == "broken":
            (run / "manifest.json").write_text("{")
        elif isinstance(states, dict):
            write_manifest(manifest_of(**states), run)
        return Dead()

    settings = Settings(node=NodeSettings(folder=str(tmp_path), memory_gb=8, cores=8))
    late = iter(range(1, 100))
    worker = Worker(
        settings, engine, name="w", world=World(now=lambda it: database_now(it) + next(late) * FIRST_PAUSE, start=start)
    )
    for _ in range(2 * MOST_CRASHES):
        worker.turn()
    with engine.connect() as connection:
        job = find_job(connection, 1)
    assert job is not None and job.error_code == "job.crashed"
    assert job.error == f"its process died {MOST_CRASHES} times, the last time by SIGSEGV{words}"
