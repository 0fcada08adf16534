"""What is asked of the job table goes through an index: a hundred thousand rows are not read for the sake of one."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from carina.config import NodeSettings, Priority, Settings
from carina.database import open_database, upgrade_schema
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import list_jobs
from carina.jobs.queue import JobEnd, NewJob, Room, claim, count_from_now, set_priority, silent, stop, submit
from carina.jobs.reading import next_to_read
from carina.jobs.worker import Worker

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
WHOLE = Room(8000, 4)


def claim_and_stop(connection: Connection) -> None:
    found = claim(connection, "w", WHOLE, WHOLE, NOW)
    assert found is not None
    assert stop(connection, found[0], JobEnd.HEALTHY, NOW)


ASKED: dict[str, Callable[[Connection], object]] = {
    "claim": claim_and_stop,
    "count from now": lambda it: count_from_now(it, NOW),
    "silent": lambda it: silent(it, NOW),
    "a page": lambda it: list_jobs(it, before=7),
    "ended": lambda it: list_jobs(it, JobFilter(states=["healthy", "faulted"])),
    "waiting": lambda it: list_jobs(it, JobFilter(states=["pending"])),
    "to read": lambda it: list_jobs(it, JobFilter(reading="unread")),
    "next to read": lambda it: next_to_read(it, 1, "default"),
    "priority": lambda it: set_priority(it, 1, Priority.HIGH),
}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    upgrade_schema(made)
    return made


def plans(engine: Engine, work: Callable[[], object]) -> list[str]:
    """How SQLite goes about everything that ``work`` asks."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def hear(_: object, cursor: object, statement: str, parameters: tuple[object, ...], *more: object) -> None:
        del cursor, more
        if re.match("select|update", statement, flags=re.I):
            asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    work()
    event.remove(engine, "before_cursor_execute", hear)
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(f"explain query plan {text}", values).all() for text, values in asked]
    assert found
    return [row.detail for rows in found for row in rows]


def whole_tables(told: list[str]) -> list[str]:
    """What reads a table from end to end, but that of the node's identity, which has one row."""
    return [line for line in told if re.match(r"SCAN (?!.*INDEX|CONSTANT ROW|identity$)", line)]


@pytest.mark.parametrize("name", ASKED)
def test_a_question_reads_no_whole_table(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        submit(connection, NewJob(source="/in", pipeline="default", memory_mb=1, cores=1), NOW)

    def ask() -> None:
        with engine.begin() as connection:
            ASKED[name](connection)

    assert whole_tables(plans(engine, ask)) == []


def test_a_worker_with_nothing_to_do_reads_no_whole_table(engine: Engine, tmp_path: Path) -> None:
    worker = Worker(Settings(node=NodeSettings(folder=str(tmp_path), memory_gb=8, cores=4)), engine)
    assert whole_tables(plans(engine, worker.turn)) == []


def test_a_whole_table_would_be_seen(engine: Engine) -> None:
    def ask() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("select id from job where state <> 'stopped' and source = 'x'")

    assert whole_tables(plans(engine, ask)) == ["SCAN job"]
