"""However the worklist is filtered, SQLite finds its rows through an index, sorts nothing and reads no table whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from carina.database import open_database, read_only, seeing, upgrade_schema
from carina.deliver.ledger import counts
from carina.deliver.register import troubles_by_job
from carina.jobs.listing import JobFilter, JobOrder, job_counts, list_jobs
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
