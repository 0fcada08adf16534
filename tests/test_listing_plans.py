"""However the worklist is filtered, SQLite finds its rows through an index, sorts nothing and reads no table whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from carina.database import open_database, read_only, seeing, upgrade_schema
from carina.deliver.ledger import counts
from carina.deliver.register import troubles_by_job
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import JobOrder, job_counts, list_jobs
from carina.jobs.reading import Reading, next_to_read
from carina.service.arrivals import HELD_BACK, first_files, list_arrivals
from carina.service.rest.job_pages import ShownState

IDS = tuple(range(1, 51))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{tmp_path_factory.mktemp('plans') / 'node.sqlite'}")
    upgrade_schema(made)
    yield made
    made.dispose()


def plan_of(engine: Engine, ask: Callable[[Connection], Any]) -> list[str]:
    """What SQLite does for each statement of a question, in its own words."""
    found: list[tuple[str, Any]] = []

    def keep(_: Any, __: Any, statement: str, given: Any, *___: Any) -> None:
        found.append((statement, given))

    event.listen(engine, "before_cursor_execute", keep)
    try:
        with read_only(engine) as connection:
            ask(connection)
    finally:
        event.remove(engine, "before_cursor_execute", keep)
    with engine.connect() as connection:
        asked = [(f"explain query plan {text}", given) for text, given in found if text.startswith("SELECT")]
        return [str(row[-1]) for text, given in asked for row in connection.exec_driver_sql(text, given)]


VIEWS = pytest.mark.parametrize("projects", [None, ("a",), ("a", "b")], ids=str)


def seen(engine: Engine, projects: tuple[str, ...] | None) -> Engine:
    return engine if projects is None else seeing(engine, frozenset(projects))


@VIEWS
@pytest.mark.parametrize("order", JobOrder)
@pytest.mark.parametrize("before", [None, 50])
def test_jobs_are_listed_through_an_index_whatever_is_chosen(
    engine: Engine, projects: tuple[str, ...] | None, order: JobOrder, before: int | None
) -> None:
    states = [(), *((one.value,) for one in ShownState)]
    for chosen, reading, pipeline in product(states, ["", *Reading], ["", "default"]):
        filtered = JobFilter(states=chosen, reading=reading, pipeline=pipeline)
        ask = partial(list_jobs, filtered=filtered, before=before, order=order)
        plan = plan_of(seen(engine, projects), ask)
        if filtered == JobFilter() and projects is None and before is None:
            assert plan == ["SCAN job"]  # from one end of the table, by its key
        else:
            assert all(line.startswith("SEARCH job USING") for line in plan), (filtered, plan)


DAY = date(2026, 3, 4)
LEADS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a UID": ({"uid": "1.2"}, ("ix_job_study_uid (study_uid=?", "ix_job_series_uid (series_uid=?")),
    "a UID and dates": ({"uid": "1.2", "studied_from": DAY}, ("ix_job_study_uid (study", "ix_job_series_uid (series")),
    "from a day": ({"studied_from": DAY}, ("study_date>? AND study_date<?)",)),
    "to a day": ({"studied_to": DAY}, ("study_date>? AND study_date<?)",)),
}
BESIDE: list[dict[str, Any]] = [
    {},
    {"states": ("healthy",)},
    {"states": ("pending", "faulted"), "pipeline": "p"},
    {"reading": "unread", "received_by": "s"},
    {"pipeline": "p", "states": ("healthy",), "is_warned": True},
    {"description": "thorax"},
]


@VIEWS
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("before", [None, 50])
def test_a_uid_or_dates_lead_whatever_is_asked_beside(
    engine: Engine, projects: tuple[str, ...] | None, lead: str, before: int | None
) -> None:
    asked, wanted = LEADS[lead]
    for beside, order in product(BESIDE, JobOrder):
        ask = partial(list_jobs, filtered=JobFilter(**asked, **beside), before=before, order=order)
        plan = [line for line in plan_of(seen(engine, projects), ask) if line != "USE TEMP B-TREE FOR ORDER BY"]
        assert plan and all(any(one in line for one in wanted) for line in plan), (beside, plan)


@VIEWS
@pytest.mark.parametrize("asked", [{"received_by": "s"}, {"is_warned": True}, {"description": "x"}], ids=str)
def test_what_is_walked_through_by_key_stops_with_the_page(
    engine: Engine, projects: tuple[str, ...] | None, asked: dict[str, Any]
) -> None:
    """Nothing is sorted, and no table is read whole: what has warnings has an index of its own."""
    every: list[dict[str, Any]] = [{}, {"pipeline": "p"}, {"states": ("healthy",), "pipeline": "p"}]
    for beside in [*every, {"reading": "unread"}]:
        plan = plan_of(seen(engine, projects), partial(list_jobs, filtered=JobFilter(**asked, **beside)))
        allowed = ["SCAN job USING INDEX ix_job_warned", "SCAN job USING COVERING INDEX ix_job_warned"]
        if asked == {"description": "x"} and not beside and projects is None:
            allowed = ["SCAN job"]  # from one end of the table, by its key
        assert all(line.startswith("SEARCH job USING") or line in allowed for line in plan), (beside, plan)


@VIEWS
def test_what_stands_beside_the_jobs_is_found_by_keys(engine: Engine, projects: tuple[str, ...] | None) -> None:
    for ask in (
        lambda it: list_arrivals(it, states=["arriving"]),
        lambda it: first_files(it, IDS),
        lambda it: troubles_by_job(it, IDS),
        lambda it: next_to_read(it, 50, "a"),
    ):
        plan = plan_of(seen(engine, projects), ask)
        assert plan and not [line for line in plan if line.startswith("SCAN")], plan
    held = plan_of(seen(engine, projects), lambda it: list_arrivals(it, states=HELD_BACK))
    listed = [line for line in held if line.startswith("SEARCH arrival") and "rowid=?" not in line]
    assert listed and all("state=?" in line for line in listed), held
    troubles = plan_of(seen(engine, projects), lambda it: troubles_by_job(it, IDS))
    assert "job_id=?" in troubles[0]  # and not by state: a thousand objects wait while an archive is away


@pytest.mark.parametrize("projects", [("a",), ("a", "b")], ids=str)
@pytest.mark.parametrize("count", [counts, job_counts])
def test_what_a_project_has_is_counted_without_looking_at_others(
    engine: Engine, projects: tuple[str, ...], count: Callable[[Connection], Any]
) -> None:
    plan = plan_of(seen(engine, projects), count)
    assert plan and not [line for line in plan if line.startswith("SCAN")], plan
