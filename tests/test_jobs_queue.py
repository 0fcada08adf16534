"""The job table, on SQLite and on PostgreSQL: order, room, fencing, retries, crashes, cancel."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine

from carina.config import Priority
from carina.database import database_now, open_database, upgrade_schema
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import Job, find_job, job_counts, list_jobs
from carina.jobs.queue import (
    MOST_CRASHES,
    MOST_RETRIES,
    Attempt,
    Failure,
    JobEnd,
    JobState,
    NewJob,
    Room,
    cancel,
    claim,
    count_from_now,
    crashed,
    fail,
    give_back,
    heartbeat,
    retry,
    set_priority,
    silent,
    stop,
    submit,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
WHOLE = Room(8000, 4)


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = open_database(node_database)
    upgrade_schema(made)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as opened:
        yield opened


def put(connection: Connection, memory_mb: float = 1000, **more: object) -> int:
    new = NewJob(source="/in", pipeline="default", memory_mb=memory_mb, cores=1, **more)  # type: ignore[arg-type]
    return submit(connection, new, NOW)


def take(connection: Connection, free: Room = WHOLE, worker: str = "w", now: datetime = NOW) -> Attempt | None:
    found = claim(connection, worker, free, WHOLE, now)
    return found and found[0]


def taken(connection: Connection, now: datetime = NOW) -> Attempt:
    found = take(connection, now=now)
    assert found is not None
    return found


def shown(connection: Connection, job_id: int) -> Job:
    job = find_job(connection, job_id)
    assert job is not None
    return job


def test_the_most_urgent_and_then_the_oldest_comes_first(connection: Connection) -> None:
    wanted = [Priority.LOW, Priority.NORMAL, Priority.IMMEDIATE, Priority.NORMAL, Priority.HIGH]
    ids = [put(connection, priority=priority) for priority in wanted]
    order = [taken(connection).job_id for _ in ids]
    assert order == [ids[2], ids[4], ids[1], ids[3], ids[0]]
    assert take(connection) is None


def test_priority_is_changed_while_a_job_waits_and_not_afterwards(connection: Connection) -> None:
    first, second = put(connection), put(connection)
    assert set_priority(connection, second, Priority.HIGH)
    assert taken(connection).job_id == second
    assert not set_priority(connection, second, Priority.LOW)
    assert shown(connection, first).priority is Priority.NORMAL


def test_a_large_job_is_not_passed_by_small_ones(connection: Connection) -> None:
    large, small = put(connection, memory_mb=6000), put(connection, memory_mb=100)
    assert take(connection, Room(5000, 4)) is None
    assert [taken(connection).job_id, taken(connection).job_id] == [large, small]


def test_what_asks_for_more_than_there_is_runs_alone(connection: Connection) -> None:
    huge = put(connection, memory_mb=64_000)
    assert take(connection, Room(7999, 4)) is None
    found = claim(connection, "w", WHOLE, WHOLE, NOW)
    assert found == (Attempt(huge, 1), Room(8000, 1))


def test_only_the_attempt_that_runs_changes_its_job(connection: Connection) -> None:
    job_id = put(connection)
    frozen = taken(connection)
    assert silent(connection, NOW + timedelta(seconds=1)) == [frozen]
    assert crashed(connection, frozen, "without a word", NOW)
    later = NOW + timedelta(minutes=1)
    assert not stop(connection, frozen, JobEnd.HEALTHY, later)
    awake = taken(connection, later)
    assert awake == Attempt(job_id, 2)
    changed = [
        stop(connection, frozen, JobEnd.HEALTHY, later),
        fail(connection, frozen, Failure("x.y", "no"), later),
        give_back(connection, frozen),
        crashed(connection, frozen, "by SIGKILL", later),
    ]
    assert changed == [False] * 4
    assert heartbeat(connection, [frozen, awake], later) == {awake: False}
    assert stop(connection, awake, JobEnd.HEALTHY, later)
    assert shown(connection, job_id).shown_state == "healthy"


def test_a_failure_that_may_pass_waits_longer_each_time_and_ends(connection: Connection) -> None:
    job_id, now, pauses = put(connection), NOW, []
    for _ in range(MOST_RETRIES):
        assert fail(connection, taken(connection, now), Failure("output.disk-full", "full.", may_pass=True), now)
        until = shown(connection, job_id).not_before
        assert until is not None
        assert take(connection, now=until - timedelta(seconds=1)) is None
        pauses.append(until - now)
        now = until
    assert pauses == sorted(pauses)
    assert len(set(pauses)) > 5
    assert fail(connection, taken(connection, now), Failure("output.disk-full", "full.", may_pass=True), now)
    job = shown(connection, job_id)
    assert (job.shown_state, job.error_code, job.error) == ("faulted", "output.disk-full", "full.")


def test_where_the_clock_is_set_back_a_job_waits_no_longer(connection: Connection) -> None:
    job_id, back = put(connection), NOW - timedelta(hours=5)
    assert fail(connection, taken(connection), Failure("output.disk-full", "full.", may_pass=True), NOW)
    assert take(connection) is None
    assert taken(connection, back).job_id == job_id


def test_where_the_clock_is_set_back_a_worker_is_lost_only_after_its_time(connection: Connection) -> None:
    put(connection)
    attempt, back = taken(connection), NOW - timedelta(hours=5)
    count_from_now(connection, back)
    assert silent(connection, back) == []
    count_from_now(connection, back + timedelta(seconds=30))
    assert silent(connection, back + timedelta(seconds=1)) == [attempt]


def test_a_failure_that_cannot_pass_stops_at_once_until_it_is_retried(connection: Connection) -> None:
    job_id = put(connection)
    assert fail(connection, taken(connection), Failure("series.gap", "a gap."), NOW)
    assert shown(connection, job_id).shown_state == "faulted"
    assert retry(connection, job_id)
    job = shown(connection, job_id)
    assert (job.shown_state, job.error_code, job.retries, job.stopped_at) == ("pending", "", 0, None)
    stop(connection, taken(connection), JobEnd.HEALTHY, NOW)
    assert not retry(connection, job_id)


def test_a_job_that_kills_its_worker_three_times_is_stopped_and_says_so(connection: Connection) -> None:
    job_id, other = put(connection), put(connection)
    now = NOW
    for _ in range(MOST_CRASHES):
        now += timedelta(minutes=1)
        attempt = taken(connection, now)
        assert attempt.job_id == job_id
        assert crashed(connection, attempt, "by SIGSEGV", now)
    job = shown(connection, job_id)
    assert (job.shown_state, job.error_code) == ("faulted", "job.crashed")
    assert "died 3 times, the last time by SIGSEGV" in job.error
    assert taken(connection, now).job_id == other


def test_cancel(connection: Connection) -> None:
    waiting, running = put(connection, priority=Priority.LOW), put(connection)
    attempt = taken(connection)
    assert cancel(connection, waiting, NOW, why="job 9 runs on more instances")
    assert shown(connection, waiting).error == "canceled: job 9 runs on more instances."
    assert cancel(connection, running, NOW)
    assert shown(connection, running).state is JobState.RUNNING
    assert heartbeat(connection, [attempt], NOW) == {attempt: True}
    assert stop(connection, attempt, JobEnd.CANCELED, NOW)
    assert not cancel(connection, running, NOW)
    assert not cancel(connection, 999, NOW)
    assert job_counts(connection) == {"pending": 0, "running": 0, "healthy": 0, "faulted": 0, "canceled": 2}


def test_pages_by_key_and_filters(connection: Connection) -> None:
    ids = [put(connection) for _ in range(7)]
    stop(connection, taken(connection), JobEnd.HEALTHY, NOW)
    taken(connection)
    first = list_jobs(connection, at_most=3).jobs
    second = list_jobs(connection, at_most=3, before=first[-1].id).jobs
    assert [job.id for job in (*first, *second)] == ids[:0:-1]
    assert [job.id for job in list_jobs(connection, JobFilter(states=["healthy", "running"])).jobs] == [ids[1], ids[0]]
    assert list_jobs(connection, JobFilter(pipeline="other")).jobs == ()


def test_what_was_submitted_is_what_is_shown(connection: Connection) -> None:
    job_id = put(connection, destinations=("pacs", "archive"), series_uid="1.2.3", priority=Priority.HIGH)
    job = shown(connection, job_id)
    assert (job.destinations, job.series_uid, job.folder) == (("pacs", "archive"), "1.2.3", f"runs/{job_id}")
    assert (job.created_at, job.started_at, job.attempt) == (NOW, None, 0)


def test_many_workers_get_each_job_once(engine: Engine) -> None:
    with engine.begin() as connection:
        ids = [put(connection) for _ in range(60)]
    got: list[int] = []

    def work(name: str) -> None:
        while True:
            with engine.begin() as own:
                attempt = take(own, worker=name, now=database_now(own))
                if attempt is None:
                    left = job_counts(own)[JobState.PENDING]
                else:
                    got.append(attempt.job_id)
                    left = 1
            if not left:
                return

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(got) == Counter(ids)
