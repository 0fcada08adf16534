"""A cohort on many workers with failures, simulated: the real table, queue and worker; a fake clock and processes.

    python benchmarks/many_workers.py [--jobs 100000] [--workers 64]

Runs take some seconds of the fake clock (log-normal, median 20) on two of a worker's four cores. Some crash, fail and
are tried again, can't be done, or kill whatever runs them; workers die and are started again elsewhere, or stand still
with all their runs and wake up. Every turn of a worker that can change something takes place, and costs time.
The table is in SQLite, in memory-backed storage where there is some.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from sqlalchemy import Connection, Engine, select

from carina.config import NodeSettings, Settings
from carina.database import JOB, open_database, upgrade_schema
from carina.jobs.queue import Attempt, Failure, JobEnd, NewJob, fail, stop, submit_all
from carina.jobs.worker import HEARTBEATS, LOST_AFTER, PAUSE_S, Worker, World

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
OPERATORS = 4
"""A run resumes after the last of them that had ended."""

JOBS_EACH = 2
"""What a worker runs at once: two cores and at most half its memory each."""

MEDIAN_S, SPREAD = 20.0, 0.5
FILLED_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Troubles:
    """What goes wrong: shares of attempts and of jobs, and mean seconds of a worker between its own."""

    crash: float = 0.01
    may_pass: float = 0.01
    bad: float = 0.005
    deadly: float = 0.001
    die_s: float = 6 * 3600
    stall_s: float = 8 * 3600
    restart_s: float = 60.0
    turn_s: float = 0.005


NO_TROUBLES = Troubles(crash=0, may_pass=0, bad=0, deadly=0, die_s=math.inf, stall_s=math.inf)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a simulation ended: fake seconds, jobs by their end, what happened on the way.

    ``wrong`` are jobs that ended healthy more than once, or whose row says otherwise.
    """

    seconds: float
    workers: int
    ends: Counter[str]
    events: Counter[str]
    wrong: int
    taken_s: float
    healthy_by_then: int

    @property
    def per_worker_hour(self) -> float:
        """Jobs that a worker brought to an end in an hour, its idle time at the end counted."""
        return 3600 * self.ends.total() / (self.workers * self.seconds)

    @property
    def while_jobs_waited(self) -> float:
        """Jobs that a worker made healthy in an hour until ``taken_s``, when the last attempt began."""
        return 3600 * self.healthy_by_then / (self.workers * self.taken_s)


@dataclass(eq=False)
class FakeProcess:
    """An attempt under way: what it will come to, and when."""

    attempt: Attempt
    lane: Lane
    begun_s: float
    ends_s: float
    what: str
    code: int | None = None
    stdin: IO[bytes] | None = None

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.code = -9 if self.code is None else self.code

    terminate = kill

    def wait(self, timeout: float | None = None) -> int:
        del timeout
        return self.code or 0


@dataclass(eq=False)
class Lane:
    """A worker's place: who works there now, and until when it stands still."""

    number: int
    worker: Worker | None = None
    processes: list[FakeProcess] = field(default_factory=list)
    frozen_s: float = 0.0
    finished: bool = False


class Simulation:
    """Events in the order of the fake clock, until every worker has found the queue empty."""

    def __init__(self, engine: Engine, jobs: int, workers: int, troubles: Troubles = NO_TROUBLES) -> None:
        self.engine, self.troubles = engine, troubles
        self.rng = random.Random(f"{jobs} {workers}")
        self.now_s = 0.0
        self.settings = Settings(node=NodeSettings(memory_gb=16, cores=4))
        self.lanes = [Lane(number) for number in range(workers)]
        self.progress: dict[int, float] = {}
        self.events: Counter[str] = Counter()
        self.stopped: Counter[int] = Counter()
        self._heap: list[tuple[float, int, str, Lane, object]] = []
        self._order = count()
        self._last = (0.0, 0)
        self._fill(jobs)

    def run(self) -> Outcome:
        """Simulate; the same arguments give the same answer."""
        for lane in self.lanes:
            self._at(self.rng.uniform(0, PAUSE_S), "start", lane)
            self._trouble(lane, "die", self.troubles.die_s)
            self._trouble(lane, "stall", self.troubles.stall_s)
        while not all(lane.finished for lane in self.lanes):
            self.now_s, _, what, lane, subject = heapq.heappop(self._heap)
            if not lane.finished:
                getattr(self, f"_{what}")(lane, subject)
        with self.engine.connect() as connection:
            ends = Counter(connection.execute(select(JOB.c.ended)).scalars())
            healthy = set(connection.execute(select(JOB.c.id).where(JOB.c.ended == JobEnd.HEALTHY)).scalars())
        wrong = sum(self.stopped[job_id] != (job_id in healthy) for job_id in healthy | set(self.stopped))
        taken_s, healthy_by_then = self._last
        return Outcome(
            seconds=self.now_s,
            workers=len(self.lanes),
            ends=ends,
            events=self.events,
            wrong=wrong,
            taken_s=taken_s,
            healthy_by_then=healthy_by_then,
        )

    def _fill(self, jobs: int) -> None:
        asked = [
            NewJob(source="/in", pipeline="default", memory_mb=self.rng.uniform(2000, 8000), cores=2)
            for _ in range(jobs)
        ]
        for first in range(0, jobs, FILLED_AT_ONCE):
            with self.engine.begin() as connection:
                submit_all(connection, asked[first : first + FILLED_AT_ONCE], EPOCH)

    def _at(self, at_s: float, what: str, lane: Lane, subject: object = None) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), what, lane, subject))

    def _trouble(self, lane: Lane, what: str, mean_s: float) -> None:
        if mean_s < math.inf:
            self._at(max(self.now_s, lane.frozen_s) + self.rng.expovariate(1 / mean_s), what, lane)

    def _datetime(self, _: Connection | None = None) -> datetime:
        return EPOCH + timedelta(seconds=self.now_s)

    def _start(self, lane: Lane, _: object) -> None:
        """A worker is started, with a name that none had before."""

        def process(_: Settings, attempt: Attempt) -> FakeProcess:
            return self._process(lane, attempt)

        world = World(now=self._datetime, monotonic=lambda: self.now_s + 1000, start=process)
        name = f"host{lane.number}:{self.events['workers']}"
        self.events["workers"] += 1
        lane.worker = Worker(self.settings, self.engine, name=name, world=world)
        self._turn(lane, lane.worker)

    def _turn(self, lane: Lane, worker: object) -> None:
        """A worker looks after everything once; the next turn that can change something is planned."""
        if lane.worker is None or worker is not lane.worker:
            return
        if self.now_s < lane.frozen_s:
            self._at(lane.frozen_s, "turn", lane, worker)
            return
        self.events["turns"] += 1
        if lane.worker.turn():
            lane.finished = True
            return
        lane.processes = [one for one in lane.processes if one.code is None]
        base_s = self.now_s + self.troubles.turn_s + PAUSE_S
        due_s = base_s
        if len(lane.processes) == JOBS_EACH:
            due_s = min(self.now_s + LOST_AFTER.total_seconds() / HEARTBEATS, *(one.ends_s for one in lane.processes))
        self._at(base_s + PAUSE_S * max(0, math.ceil((due_s - base_s) / PAUSE_S)), "turn", lane, worker)

    def _process(self, lane: Lane, attempt: Attempt) -> FakeProcess:
        """An attempt begins; what becomes of it is drawn."""
        self._last = (self.now_s, self.events["healthy"] - self.events["refused"])
        job = random.Random(attempt.job_id)
        seconds = job.lognormvariate(math.log(MEDIAN_S), SPREAD)
        kind, draw = job.random(), self.rng.random()
        left, what = 1 - self.progress.get(attempt.job_id, 0.0), "healthy"
        if kind < self.troubles.deadly or draw < self.troubles.crash:
            what = "crash"
        elif kind < self.troubles.deadly + self.troubles.bad:
            what = "bad"
        elif draw < self.troubles.crash + self.troubles.may_pass:
            what = "may pass"
        lasts_s = seconds * left * (1 if what == "healthy" else self.rng.random())
        one = FakeProcess(attempt, lane, self.now_s, self.now_s + lasts_s, what)
        lane.processes.append(one)
        self._at(one.ends_s, "end", lane, one)
        return one

    def _end(self, lane: Lane, one: object) -> None:
        """An attempt's process comes to its end, and says so in its row as ``carina.jobs.execute`` does."""
        if not isinstance(one, FakeProcess) or one.code is not None or one.ends_s != self.now_s:
            return  # killed, or delayed by a standstill
        self.events[one.what] += 1
        self._keep(one)
        one.code = -11 if one.what == "crash" else 0
        with self.engine.begin() as connection:
            if one.what == "healthy":
                won = stop(connection, one.attempt, JobEnd.HEALTHY, self._datetime())
                self.stopped[one.attempt.job_id] += won
                self.events["refused"] += not won
            elif one.what != "crash":
                failure = Failure(f"simulated.{one.what}", "simulated.", may_pass=one.what == "may pass")
                fail(connection, one.attempt, failure, self._datetime())

    def _keep(self, one: FakeProcess) -> None:
        """What of an attempt's run the next one needs not do again: the operators that had ended."""
        job_id, done = one.attempt.job_id, self.progress.get(one.attempt.job_id, 0.0)
        seconds = random.Random(job_id).lognormvariate(math.log(MEDIAN_S), SPREAD)
        reached = done + (min(self.now_s, one.ends_s) - one.begun_s) / seconds
        self.progress[job_id] = max(done, math.floor(min(reached, 0.99) * OPERATORS) / OPERATORS)

    def _die(self, lane: Lane, _: object) -> None:
        """A worker is killed, and its processes with it; another is started after a while."""
        if self.now_s < lane.frozen_s:
            self._at(lane.frozen_s, "die", lane)
            return
        self.events["deaths"] += 1
        for one in lane.processes:
            if one.code is None:
                self._keep(one)
            one.kill()
        lane.worker, lane.processes = None, []
        self._at(self.now_s + self.troubles.restart_s, "start", lane)
        self._trouble(lane, "die", self.troubles.die_s)

    def _stall(self, lane: Lane, _: object) -> None:
        """A worker stands still with its processes; what they had left takes place after it has woken."""
        length_s = self.rng.uniform(30, 600)
        self.events["stalls"] += 1
        lane.frozen_s = max(lane.frozen_s, self.now_s) + length_s
        for one in lane.processes:
            if one.code is None:
                one.ends_s += length_s
                one.begun_s += length_s
                self._at(one.ends_s, "end", lane, one)
        self._trouble(lane, "stall", self.troubles.stall_s)


def simulate(database: str, jobs: int, workers: int, troubles: Troubles = NO_TROUBLES) -> Outcome:
    """A simulation in an empty database."""
    engine = open_database(database)
    try:
        upgrade_schema(engine)
        return Simulation(engine, jobs, workers, troubles).run()
    finally:
        engine.dispose()


def fast_folder() -> TemporaryDirectory[str]:
    """A temporary folder in memory where there is one: what a commit costs is not what is measured."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(dir=memory if memory.is_dir() else None)


def _told(name: str, outcome: Outcome) -> None:
    ends = ", ".join(f"{number} {end}" for end, number in sorted(outcome.ends.items()))
    events = ", ".join(f"{number} {event}" for event, number in sorted(outcome.events.items()))
    print(f"{name}: {outcome.per_worker_hour:.1f} jobs an hour and worker; {outcome.seconds:.0f} s; {ends}")
    print(f"  ended twice or wrongly: {outcome.wrong}; {events}", flush=True)


def main() -> None:
    """One worker alone without troubles, then many with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=64)
    args = parser.parse_args()
    with fast_folder() as folder:
        alone = simulate(f"sqlite:///{folder}/alone.sqlite", max(1, args.jobs // args.workers), 1)
        _told("one worker alone, without troubles", alone)
        many = simulate(f"sqlite:///{folder}/many.sqlite", args.jobs, args.workers, Troubles())
        _told(f"{args.workers} workers with troubles", many)
    print(f"throughput of a worker against one alone: {many.per_worker_hour / alone.per_worker_hour:.3f}")


if __name__ == "__main__":
    main()
