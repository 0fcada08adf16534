"""The job table with many jobs waiting: claim, list and change of priority, by percentile.

    python benchmarks/job_queue.py [--database URL] [--waiting 100000] [--repeats 300]

Without a database, SQLite in a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, Engine, insert

from carina.config import Priority
from carina.database import JOB, open_database, upgrade_schema
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import list_jobs
from carina.jobs.queue import JobEnd, Room, claim, set_priority, stop

WHOLE = Room(64_000, 16)


def fill(engine: Engine, count: int) -> float:
    """Put jobs into the table; gives the seconds that took."""
    now, begun = datetime.now(UTC), time.perf_counter()
    row = {"source": "/in", "pipeline": "default", "folder": "runs/x", "state": "pending", "memory_mb": 3000.0}
    rows = [row | {"priority": 1 + number % 3, "cores": 2.0, "created_at": now} for number in range(count)]
    with engine.begin() as connection:
        connection.execute(insert(JOB), rows)
    return time.perf_counter() - begun


def times_ms(engine: Engine, work: Callable[[Connection], object], repeats: int) -> tuple[float, float, float]:
    """Median and 95th percentile of a transaction's time, and this process's processor time for one, in ms."""
    times = []
    processor = time.process_time()
    for _ in range(repeats):
        begun = time.perf_counter()
        with engine.begin() as connection:
            work(connection)
        times.append(1000 * (time.perf_counter() - begun))
    processor = 1000 * (time.process_time() - processor) / repeats
    return statistics.median(times), statistics.quantiles(times, n=20)[-1], processor


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="")
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=300)
    args = parser.parse_args()
    rng = random.Random(1)

    def claim_and_stop(connection: Connection) -> None:
        found = claim(connection, "benchmark", WHOLE, WHOLE, datetime.now(UTC))
        if found is None:
            raise RuntimeError("nothing was claimed")
        stop(connection, found[0], JobEnd.HEALTHY, datetime.now(UTC))

    def page(connection: Connection) -> None:
        list_jobs(connection, before=rng.randint(1000, args.waiting), at_most=100)

    def filtered(connection: Connection) -> None:
        list_jobs(connection, JobFilter(states=["healthy", "faulted"]), at_most=100)

    def urgent(connection: Connection) -> None:
        set_priority(connection, rng.randint(1, args.waiting), Priority.HIGH)

    with TemporaryDirectory() as folder:
        engine = open_database(args.database or f"sqlite:///{folder}/node.sqlite")
        upgrade_schema(engine)
        print(f"{engine.dialect.name}: {args.waiting} jobs put in in {fill(engine, args.waiting):.1f} s")
        print("| work | median, ms | p95, ms | processor ms |\n|---|---|---|---|")
        named = {
            "claim and stop": claim_and_stop,
            "a page of 100": page,
            "the latest 100 that have stopped": filtered,
            "change of priority": urgent,
        }
        for name, work in named.items():
            median, p95, processor = times_ms(engine, work, args.repeats)
            print(f"| {name} | {median:.1f} | {p95:.1f} | {processor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
