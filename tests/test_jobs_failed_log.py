"""What a node's log says of attempts that fail: which job, of what, and when it is tried again."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from sqlalchemy import Engine

from carina.config import NodeSettings, Settings
from carina.database import database_now
from carina.jobs.execute import TRACE, failure_of
from carina.jobs.queue import MOST_CRASHES, Attempt, Failure, JobEnd, Room, claim, fail, give_back, stop
from carina.jobs.worker import NODE_AWAY, SLOW_TO_LEAVE, Running, Worker
from carina.service.logs import JsonLines
from databases import database_of_one_job

ROOM = Room(8000, 8)
GAP = Failure("series.gap", "slices are missing below /data/Doe^Jane.")
FULL = Failure("output.memory", "memory did not suffice.", may_pass=True)
HELD = Failure("output.busy", "held.", may_pass=True, is_outage=True)
AGAIN = r"tried again at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with database_of_one_job(tmp_path) as made:
        yield made


@pytest.fixture
def worker(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Worker:
    caplog.set_level(logging.INFO, "carina.jobs.worker")
    return Worker(Settings(node=NodeSettings(folder=str(tmp_path), memory_gb=8, cores=8)), engine, name="w")


class Ended:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.stdin: IO[bytes] | None = None

    def poll(self) -> int:
        return self.code

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return self.code


def claimed(engine: Engine) -> Attempt:
    with engine.begin() as connection:
        found = claim(connection, "w", ROOM, ROOM, database_now(connection).replace(year=2100))
    assert found is not None
    return found[0]


def ends(worker: Worker, code: int, failure: Failure | None = None, *, canceled: bool = False) -> None:
    """Let an attempt end, after it wrote why it failed where it did."""
    attempt = claimed(worker.engine)
    with worker.engine.begin() as connection:
        if failure is not None:
            fail(connection, attempt, failure, database_now(connection))
    worker.running.append(Running(attempt, ROOM, Ended(code), canceled=canceled))
    worker._reap()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno > logging.INFO and "attempt" in one.getMessage()]


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (GAP, 0, r"failed \[series\.gap\]: carina jobs show 1 has the reason; it is not tried again\."),
        (FULL, 0, rf"failed \[output\.memory\]: carina jobs show 1 has the reason; it is {AGAIN}\."),
        (None, -signal.SIGKILL, rf"failed \[job\.crashed\]: its process ended by SIGKILL; it is {AGAIN}\."),
    ],
)
def test_a_failed_attempt_is_one_warning(
    worker: Worker, caplog: pytest.LogCaptureFixture, failure: Failure | None, code: int, words: str
) -> None:
    ends(worker, code, failure)
    (line,) = warnings(caplog)
    assert re.fullmatch(rf"job 1: attempt 1 {words}", line)
    (record,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert vars(record)["code"] == (failure.code if failure else "job.crashed")
    assert "Doe" not in caplog.text


def test_the_last_crash_is_said_to_be_the_last(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(MOST_CRASHES):
        ends(worker, -signal.SIGKILL)
    assert ["not tried again" in line for line in warnings(caplog)] == [False] * (MOST_CRASHES - 1) + [True]


def test_a_worker_that_is_asked_to_end_says_which_jobs_wait_again(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.running.append(Running(claimed(worker.engine), ROOM, Ended(0)))
    worker._end()
    said = [one.getMessage() for one in caplog.records]
    assert said == ["job 1: attempt 1 is given back, since the worker was asked to end."]


def test_an_attempt_that_is_given_back_or_canceled_is_no_failure(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    ends(worker, 0, FULL)
    caplog.clear()
    ends(worker, NODE_AWAY)
    ends(worker, -signal.SIGKILL, canceled=True)
    assert warnings(caplog) == []


@pytest.mark.parametrize("disowned", ["disowned", ""])
@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (JobEnd.HEALTHY, 0, "is done"),
        (JobEnd.HEALTHY, -signal.SIGKILL, "is done; its process ended by SIGKILL afterwards"),
        (JobEnd.CANCELED, -signal.SIGKILL, "is canceled"),
    ],
)
def test_what_an_attempt_came_to_is_said_however_its_process_ended(
    worker: Worker, engine: Engine, caplog: pytest.LogCaptureFixture, end: JobEnd, code: int, words: str, disowned: str
) -> None:
    """One that is slow to exit after it has stopped its job is killed as disowned."""
    attempt = claimed(engine)
    with engine.begin() as connection:
        stop(connection, attempt, end, database_now(connection))
    worker.running.append(Running(attempt, ROOM, Ended(code), disowned=bool(disowned)))
    worker._reap()
    if disowned:
        words = words.replace("its process ended by SIGKILL afterwards", SLOW_TO_LEAVE)
    assert caplog.messages == [f"job 1: attempt 1 {words}."]
    assert warnings(caplog) == []


def test_an_attempt_that_was_given_away_is_said_to_count_no_more(
    worker: Worker, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = claimed(engine)
    with engine.begin() as connection:
        give_back(connection, attempt)
    claimed(engine)
    worker.running.append(Running(attempt, ROOM, Ended(-signal.SIGKILL), disowned=True))
    worker._reap()
    assert caplog.messages == ["job 1: attempt 1 counts no more; its process ended by SIGKILL."]


def test_a_folder_that_stays_held_is_said_once(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(4):
        ends(worker, 0, HELD)
    (line,) = warnings(caplog)
    words = r"job 1: attempt 1 failed \[output\.busy\]: the process of an earlier attempt stands still and holds .*"
    assert re.fullmatch(words + rf"it is {AGAIN}\.", line)


def test_a_job_whose_worker_is_lost_is_said_with_its_next_try(
    worker: Worker, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = claimed(engine)
    with engine.begin() as connection:
        worker._lost(connection, attempt)
    (line,) = warnings(caplog)
    words = r"job 1: attempt 1 failed \[job\.worker-lost\]: its worker was not heard of any more; it is " + AGAIN
    assert re.match(words, line)


@pytest.mark.parametrize("error", [ValueError("of DOE^JANE"), OSError("DOE^JANE"), KeyError("DOE^JANE")])
def test_what_an_exception_quotes_is_in_the_runs_folder_alone(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "runs" / "1"
    failure = failure_of(error, run, Settings(node=NodeSettings(folder=str(tmp_path))))
    said = [*caplog.messages, *map(JsonLines().format, caplog.records), failure.message]
    said.append(JsonLines().format(logging.makeLogRecord({"exc_info": (type(error), error, None)})))
    assert not [one for one in said if "DOE" in one]
    if not isinstance(error, OSError):
        assert f"{run / TRACE} has the traceback" in failure.message
        assert "DOE^JANE" in (run / TRACE).read_text()
