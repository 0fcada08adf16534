"""A worker: claims jobs as its memory and cores allow, runs each in a process of its own, and sees how that ends.

The same worker serves a node on one machine (SQLite) and any number of them on many (PostgreSQL): who gets a job is
settled in the table. Workers also look after what no worker does: complete arrivals become jobs, and jobs whose worker
was not heard of for ``LOST_AFTER`` wait again.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, exists, select
from sqlalchemy.exc import OperationalError

from carina.config import Settings
from carina.database import JOB, FolderAway, Outages, OwnFolder, database_now
from carina.errors import FULL, LastingTrouble
from carina.jobs.at_work import at_work, manifest_time
from carina.jobs.attempt_log import LOGS, bound_log
from carina.jobs.attempt_process import Process, attempt_process
from carina.jobs.belonging import set_unknown_runs_aside
from carina.jobs.intake import take_up
from carina.jobs.machine import whole_machine
from carina.jobs.places import log_of
from carina.jobs.queue import (
    CRASHED,
    FIRST_PAUSE,
    NO_ROOM_TO_RUN,
    RUN_HELD,
    Attempt,
    AttemptEnd,
    Failure,
    JobEnd,
    JobState,
    Room,
    attempt_end,
    claim,
    count_from_now,
    crashed,
    fail,
    give_back,
    heartbeat,
    running_on,
    silent,
    stop_canceled,
)
from carina.sections import RUNS

LOST_AFTER = timedelta(seconds=60)
HEARTBEATS = 12
"""How often a worker is heard of in the time after which it counts as lost."""

PAUSE_S = 0.5
"""Between two looks at the table."""

PATIENCE_S = 10.0
"""How long a process that was asked to end has for it."""

NODE_AWAY = 69
"""Exit code of an attempt that can't reach the node's database or its folder (EX_UNAVAILABLE): no fault of the job."""

_GIVEN_BACK = "is given back, since it could not reach the node's database or folder"

WORKER_LOST = Failure("job.worker-lost", "its worker was killed, or stood still.", may_pass=True)
"""Not the job's fault as a rule, and tried again longer than a job whose own process dies."""

SILENT = "its worker was not heard of any more"

HELD = "the process of an earlier attempt stands still and holds the run's folder; it is ended where it is found here"

PLAINLY = "with exit code 0"

SLOW_TO_LEAVE = "its process had nothing left to do, was slow to leave, and was ended, so that others have its room"
"""Of a process that still unloads libraries some seconds after it has stopped its job: the machine is busy."""

CAME_TO: Mapping[str, str] = {JobEnd.HEALTHY: "is done", JobEnd.CANCELED: "is canceled"}
"""What the log says of an attempt whose job is stopped, and has not failed."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class World:
    """The clocks that a worker reads and the processes that it starts; a simulation has its own."""

    now: Callable[[Connection], datetime] = database_now
    monotonic: Callable[[], float] = time.monotonic
    start: Callable[[Settings, Attempt], Process] = attempt_process


@dataclass(eq=False)
class Running:
    """A process at work on an attempt.

    ``began`` is the time of the run's manifest before it, ``left_out`` are the bytes that its log lacks.
    """

    attempt: Attempt
    takes: Room
    process: Process
    canceled: bool = False
    disowned: bool = False
    began: int = 0
    left_out: int = 0


class Worker:
    """Runs jobs until it is stopped; ``name`` is what the table shows as who runs a job.

    A job of a worker that was silent for ``lost_after`` is given to another.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        *,
        name: str = "",
        lost_after: timedelta = LOST_AFTER,
        world: World | None = None,
    ) -> None:
        self.settings, self.engine = settings, engine
        self.name = name or f"{platform.node()}:{os.getpid()}"
        self.lost_after, self.world = lost_after, world or World()
        self.whole = whole_machine(settings)
        self.running: list[Running] = []
        self.stopping = threading.Event()
        self._heard = 0.0
        self._outages = Outages(f"worker {self.name}", settings.node.folder)
        self._full = Outages(f"worker {self.name}", Path(settings.node.folder, RUNS))
        self.own = OwnFolder(Path(settings.node.folder), engine, f"worker {self.name}")
        self._held = LastingTrouble()

    def go(self, *, until_empty: bool = False, watch: Callable[[], None] = lambda: None) -> None:
        """Work until ``stopping`` is set, or until nothing waits or runs any more, here or elsewhere.

        ``watch`` is called in every round. However it ends, no process is left, and what was running waits again.
        """
        try:
            self._take_over()
            while not self.stopping.is_set():
                watch()
                try:
                    is_empty = self.turn()
                except (OperationalError, OSError, FolderAway) as error:  # the machine's trouble: jobs run on
                    is_empty = False
                    if self._outages.met(error if self.own.is_there() else self.own.away) is None:
                        raise
                else:
                    self._outages.is_over()
                if is_empty and until_empty:
                    return
                self.stopping.wait(PAUSE_S)
        finally:
            self._end()

    def turn(self) -> bool:
        """Look after everything once, which ``go`` does all the time; True where there is nothing left to do."""
        self._reap()
        for one in self.running:
            self._bound_log(one)
        with self.engine.begin() as connection:
            now = self.world.now(connection)
            if self.world.monotonic() - self._heard >= self.lost_after.total_seconds() / HEARTBEATS:
                self._hear(connection)
                count_from_now(connection, now)
                for attempt in silent(connection, now - self.lost_after):
                    how = "without a word from its worker" + at_work(self._run_of(attempt), 0)
                    if crashed(connection, attempt, how, now):
                        _tell_failed(attempt, CRASHED, SILENT, attempt_end(connection, attempt))
            claimed = self._claim_anew(connection, now)
        for attempt, takes in claimed:
            self._start(attempt, takes)
        if claimed or self.running:
            return False
        with self.engine.connect() as connection:
            # by equality: "not stopped" would read the rows of all that have
            left = exists().where(JOB.c.state.in_((JobState.PENDING, JobState.RUNNING)))
            return not connection.execute(select(left)).scalar_one()

    def _take_over(self) -> None:
        """Let the jobs of workers that were killed on this machine wait again at once; their processes ended too."""
        set_unknown_runs_aside(Path(self.settings.node.folder), self.engine)
        with self.engine.begin() as connection:
            for attempt, name in running_on(connection, platform.node()).items():
                number = name.rpartition(":")[2]
                # in a container that was started again, the worker before had this one's number as well
                if name == self.name or (number.isdecimal() and not _is_alive(int(number))):
                    self._lost(connection, attempt)

    def _lost(self, connection: Connection, attempt: Attempt) -> None:
        if fail(connection, attempt, WORKER_LOST, self.world.now(connection)):
            _tell_failed(attempt, WORKER_LOST.code, SILENT, attempt_end(connection, attempt))

    def _free(self) -> Room:
        used = [one.takes for one in self.running]
        memory, cores = sum(room.memory_mb for room in used), sum(room.cores for room in used)
        return Room(self.whole.memory_mb - memory, self.whole.cores - cores)

    def _claim_anew(self, connection: Connection, now: datetime) -> list[tuple[Attempt, Room]]:
        """Take what waits; nothing while the node's folder is away, in which every job would fail."""
        if not self.own.is_there():
            return []
        take_up(connection, self.settings, now)
        claimed = self._claim(connection)
        self.own.check()  # else what was seen of files for the new jobs says nothing
        return claimed

    def _claim(self, connection: Connection) -> list[tuple[Attempt, Room]]:
        claimed: list[tuple[Attempt, Room]] = []
        free = self._free()
        while found := claim(connection, self.name, free, self.whole, self.world.now(connection)):
            claimed.append(found)
            free = Room(free.memory_mb - found[1].memory_mb, free.cores - found[1].cores)
        return claimed

    def _run_of(self, attempt: Attempt) -> Path:
        return Path(self.settings.node.folder, RUNS, str(attempt.job_id))

    def _bound_log(self, one: Running) -> None:
        one.left_out = bound_log(log_of(self.settings, one.attempt.job_id, one.attempt.number), one.left_out)

    def _start(self, attempt: Attempt, takes: Room) -> None:
        began = manifest_time(self._run_of(attempt))
        try:
            self.own.make(LOGS)
            process = self.world.start(self.settings, attempt)
        except (OSError, FolderAway) as error:  # the disk is full, the machine has no more processes: that may pass
            self._not_started(attempt, error)
            return
        _LOG.info("job %d: attempt %d begins.", attempt.job_id, attempt.number, extra=_fields(attempt))
        self.running.append(Running(attempt, takes, process, began=began))
        with suppress(BrokenPipeError):  # one that is dead already is seen in the next round
            if process.stdin is not None:
                process.stdin.write(msgspec.json.encode(self.settings) + b"\n")
                process.stdin.flush()

    def _not_started(self, attempt: Attempt, error: OSError | FolderAway) -> None:
        if isinstance(error, FolderAway) or not self.own.is_there():
            with self.engine.begin() as connection:
                give_back(connection, attempt)
            _tell(attempt, _GIVEN_BACK)
            return
        words, is_outage = f"its process could not be started ({error.strerror or error}).", error.errno in FULL
        failure = Failure("job.not-started", words, may_pass=True, is_outage=is_outage)
        with self.engine.begin() as connection:
            fail(connection, attempt, failure, self.world.now(connection))
            end = attempt_end(connection, attempt)
        _tell_failed(attempt, failure.code, words.rstrip("."), end)

    def _hear(self, connection: Connection) -> None:
        """Say that the running attempts live; end those that are to be canceled, or don't count any more.

        One that has just stopped its job doesn't count either: it has until the next time to end by itself.
        """
        counting = heartbeat(connection, [one.attempt for one in self.running], self.world.now(connection))
        self._heard = self.world.monotonic()
        for one in self.running:
            one.canceled |= counting.get(one.attempt, False)
            if one.disowned or one.canceled:
                one.process.kill()
            one.disowned = one.attempt not in counting

    def _reap(self) -> None:
        """Settle what became of the processes that have ended; the row of most is stopped by themselves."""
        for one in [one for one in self.running if one.process.poll() is not None]:
            attempt, how = one.attempt, _how_it_ended(one.process.poll())
            self._bound_log(one)
            has_crashed = is_given_back = False
            with self.engine.begin() as connection:
                now = self.world.now(connection)
                if one.canceled:
                    stop_canceled(connection, attempt, now)
                elif one.process.poll() == NODE_AWAY or not self.own.is_there():
                    is_given_back = give_back(connection, attempt, now + FIRST_PAUSE)
                else:
                    died = how + at_work(self._run_of(attempt), one.began)
                    has_crashed = crashed(connection, attempt, died, now)
                    how = died if has_crashed else how
                end = attempt_end(connection, attempt)
            self._tell_room(end.error_code)
            if is_given_back:
                _tell(attempt, _GIVEN_BACK)
            else:
                self._tell_end(one, how, replace(end, error_code=CRASHED) if has_crashed else end)
            _close(one.process)
            self.running.remove(one)

    def _tell_end(self, one: Running, how: str, end: AttemptEnd) -> None:
        """Say what an attempt came to; of one that finds its run's folder held as long as it is, once in a while."""
        attempt = one.attempt
        if words := CAME_TO.get(end.ended):
            is_odd = end.ended == JobEnd.HEALTHY and how != PLAINLY
            then = SLOW_TO_LEAVE if one.disowned else f"its process ended {how} afterwards"
            _tell(attempt, f"{words}; {then}" if is_odd else words)
        elif end.error_code == RUN_HELD:
            if self._held.is_news(str(attempt.job_id)):
                _tell_failed(attempt, RUN_HELD, HELD, end)
        elif end.error_code:
            why = f"carina jobs show {attempt.job_id} has the reason" if how == PLAINLY else f"its process ended {how}"
            _tell_failed(attempt, end.error_code, why, end)
        else:
            _tell(attempt, f"counts no more; its process ended {how}")

    def _tell_room(self, failed_of: str) -> None:
        """Say that an attempt found no room on the disk, or that one ended which did."""
        if failed_of == NO_ROOM_TO_RUN:
            self._full.met(OSError(errno.ENOSPC, ""))
        else:
            self._full.is_over()

    def _end(self) -> None:
        """End what is running: each loses at most the operator that it is at, and waits for another worker."""
        for one in self.running:
            one.process.terminate()
        deadline = time.monotonic() + PATIENCE_S
        for one in self.running:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            _close(one.process)
        with self.engine.begin() as connection:
            for one in [one for one in self.running if give_back(connection, one.attempt)]:
                _tell(one.attempt, "is given back, since the worker was asked to end")
        self.running.clear()


def _fields(attempt: Attempt) -> dict[str, object]:
    """What a log's reader finds the attempt's events by."""
    return {"job": attempt.job_id, "attempt": attempt.number}


def _tell(attempt: Attempt, words: str) -> None:
    _LOG.info("job %d: attempt %d %s.", attempt.job_id, attempt.number, words, extra=_fields(attempt))


def _tell_failed(attempt: Attempt, code: str, how: str, end: AttemptEnd) -> None:
    """Say that an attempt failed, and when the job is tried again; the reason itself may name files, and isn't said."""
    again = f"tried again at {end.again_at:%Y-%m-%dT%H:%M:%SZ}" if end.again_at else "not tried again"
    words = "job %d: attempt %d failed [%s]: %s; it is %s."
    _LOG.warning(words, attempt.job_id, attempt.number, code, how, again, extra=_fields(attempt) | {"code": code})


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def _close(process: Process) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
