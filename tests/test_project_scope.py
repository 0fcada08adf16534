"""Statements on a connection that sees some projects: as if the tables held the rows of these and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Connection,
    Engine,
    Table,
    delete,
    exists,
    func,
    insert,
    join,
    literal,
    select,
    text,
    union_all,
    update,
)

from carina.database import (
    ARRIVAL,
    AUDIT,
    DELIVERY,
    EVERY_PROJECT,
    INSTANCE,
    JOB,
    NOTICE,
    PRIOR,
    REMOVAL,
    SCHEMA,
    WATCHED,
    open_database,
    seeing,
)
from carina.database.project_scope import NOBODYS, OF_NO_PROJECT, OWNED, narrowed
from carina.deliver.ledger import counts, resend
from carina.deliver.register import counts_by_job, list_deliveries
from carina.jobs.filtering import JobFilter
from carina.jobs.listing import every_job, find_job, job_counts, list_jobs, sources_of
from carina.jobs.queue import NewJob, cancel, retry, submit_all
from carina.service.arrivals import arrivals_of, find_arrival, first_files, list_arrivals
from databases import new_database

NOW = datetime(2026, 3, 4, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")

PROJECTS = ("a", "b", "c")
IDS = range(1, 13)


def fill(engine: Engine, projects: tuple[str, ...]) -> None:
    """Twelve arrivals, each with two instances, a job, a delivery and perhaps a removal, of those projects alone."""
    with engine.begin() as connection:
        for number in IDS:
            project = PROJECTS[number % 3]
            if project not in projects:
                continue
            uids = {"series_uid": f"2.25.{number}", "study_uid": f"2.25.{number % 2}"}
            row = {"id": number, "source": "s", "sender": "x", "state": "quarantined", "project": project}
            connection.execute(insert(ARRIVAL), row | uids | {"first_at": NOW, "last_at": NOW})
            for one in (0, 1):
                named = {"sop_instance_uid": f"2.25.{number}.{one}", "sop_class_uid": "1.2", "path": f"{number}/{one}"}
                row = {"id": 2 * number + one, "arrival_id": number, "source": "s", "transfer_syntax_uid": "1", **named}
                connection.execute(insert(INSTANCE), row | {"sha256": "0", "bytes": 1, "accepted_at": NOW})
            ends = {"state": "stopped", "ended": "faulted"} if number % 4 else {"state": "pending", "ended": ""}
            row = {"id": number, "arrival_id": number, "project": project, "source": f"/in/{number}", "pipeline": "p"}
            sized = {"folder": "f", "priority": 2, "memory_mb": 1.0, "cores": 1.0, "created_at": NOW}
            connection.execute(insert(JOB), row | sized | ends)
            named = {"sop_instance_uid": f"2.25.9.{number}", "sop_class_uid": "1.2", "path": "p", "state": "failed"}
            row = {"id": number, "job_id": number, "destination": f"to {project}", "created_at": NOW}
            connection.execute(insert(DELIVERY), row | named)
            if number > 9:
                row = {"kind": "incoming" if number == 10 else "run", "subject_id": number, "why": "", "begun_at": NOW}
                connection.execute(insert(REMOVAL), {"id": number, **row})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, ...], Engine]]:
    """A database with all projects, and for each choice of them one that never held the others."""
    folder = tmp_path_factory.mktemp("databases")
    made = {}
    for chosen in [PROJECTS, ("a", "b"), ("b",), ()]:
        name = f"narrow-{''.join(chosen)}"
        if request.param == "sqlite":
            address = f"sqlite:///{folder}/{name}.sqlite"
        else:
            address = new_database(request.getfixturevalue("postgresql"), name)
        made[chosen] = open_database(address)
        SCHEMA.create_all(made[chosen])
        fill(made[chosen], chosen)
    yield made
    for engine in made.values():
        engine.dispose()


OTHER = ARRIVAL.alias("other")
LAST = select(func.max(JOB.c.id)).where(JOB.c.arrival_id == ARRIVAL.c.id).correlate(ARRIVAL).scalar_subquery()
GROUPED = select(JOB.c.project, func.count().label("n")).group_by(JOB.c.project).subquery()
FOUND = select(DELIVERY.c.id).where(DELIVERY.c.state == "failed").cte("found")

STATEMENTS: dict[str, Callable[[], Any]] = {
    "count": lambda: select(func.count()).select_from(INSTANCE),
    "join": lambda: select(JOB.c.id, ARRIVAL.c.id).join(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id),
    "three tables": lambda: select(JOB.c.id, DELIVERY.c.id).select_from(
        join(join(JOB, ARRIVAL, JOB.c.arrival_id == ARRIVAL.c.id), DELIVERY, DELIVERY.c.job_id == JOB.c.id)
    ),
    "two at once": lambda: select(JOB.c.id, INSTANCE.c.id),
    "itself": lambda: select(ARRIVAL.c.id, OTHER.c.id).where(ARRIVAL.c.study_uid == OTHER.c.study_uid),
    "scalar": lambda: select(ARRIVAL.c.id, LAST),
    "scalar alone": lambda: select(select(func.count()).select_from(JOB).scalar_subquery()),
    "exists": lambda: select(ARRIVAL.c.id).where(exists().where(DELIVERY.c.job_id == ARRIVAL.c.id)),
    "not exists": lambda: select(JOB.c.id).where(~exists().where(REMOVAL.c.subject_id == JOB.c.id)),
    "in": lambda: select(INSTANCE.c.id).where(INSTANCE.c.arrival_id.in_(select(ARRIVAL.c.id))),
    "grouped": lambda: select(GROUPED.c.project, GROUPED.c.n),
    "with": lambda: select(func.count()).select_from(FOUND),
    "union": lambda: select(union_all(select(JOB.c.id), select(INSTANCE.c.id)).subquery()),
    "or": lambda: select(JOB.c.id).where((JOB.c.id > 0) | (JOB.c.id < 0)),
    "having": lambda: select(JOB.c.ended, func.count()).group_by(JOB.c.ended).having(func.count() > 1),
    "nothing": lambda: select(literal(1)),
    "rows for update": lambda: select(JOB.c.id).with_for_update(skip_locked=True),
}

ASKED: dict[str, Callable[[Connection], Any]] = {
    "list_jobs": list_jobs,
    "list_jobs in states": lambda it: list_jobs(it, JobFilter(states=("pending", "faulted")), at_most=3),
    "job_counts": job_counts,
    "every_job": lambda it: list(every_job(it, page=2)),
    "sources_of": lambda it: sources_of(it, "p"),
    "find_job": lambda it: [find_job(it, number) for number in IDS],
    "list_arrivals": list_arrivals,
    "find_arrival": lambda it: [find_arrival(it, number) for number in IDS],
    "arrivals_of": lambda it: arrivals_of(it, IDS),
    "first_files": lambda it: first_files(it, IDS),
    "counts": counts,
    "counts of a job": lambda it: [counts(it, job_id=number) for number in IDS],
    "list_deliveries": list_deliveries,
    "counts_by_job": lambda it: counts_by_job(it, IDS),
}


def rows(connection: Connection, statement: Any) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, connection.execute(statement)), key=repr)


@pytest.mark.parametrize("projects", [("a", "b"), ("b",), ()], ids=str)
@pytest.mark.parametrize("name", [*STATEMENTS, *ASKED])
def test_it_is_as_if_the_others_were_never_there(
    node: dict[tuple[str, ...], Engine], projects: tuple[str, ...], name: str
) -> None:
    with seeing(node[PROJECTS], frozenset(projects)).connect() as narrow, node[projects].connect() as small:
        if name in STATEMENTS:
            assert rows(narrow, STATEMENTS[name]()) == rows(small, STATEMENTS[name]())
        else:
            assert ASKED[name](narrow) == ASKED[name](small)


@settings(max_examples=60, deadline=None)
@given(asked=st.data())
def test_any_tables_together_tell_no_more_than_their_projects(
    node: dict[tuple[str, ...], Engine], asked: st.DataObject
) -> None:
    tables = asked.draw(st.lists(st.sampled_from([ARRIVAL, JOB, INSTANCE, DELIVERY, REMOVAL]), min_size=1, max_size=2))
    shown = [table.alias() if asked.draw(st.booleans()) else table for table in tables]
    statement = select(*(one.c.id for one in shown)).distinct()
    for one in shown:
        if asked.draw(st.booleans()):
            inner = asked.draw(st.sampled_from([JOB, ARRIVAL, DELIVERY]))
            statement = statement.where(one.c.id.in_(select(inner.c.id)) | (one.c.id == asked.draw(st.integers(0, 30))))
    with seeing(node[PROJECTS], frozenset("b")).connect() as narrow, node["b",].connect() as small:
        assert rows(narrow, statement) == rows(small, statement)


CHANGES: dict[str, Callable[[Connection, int], Any]] = {
    "cancel": lambda it, number: cancel(it, number, NOW),
    "retry": retry,
    "resend": lambda it, number: resend(it, job_id=number),
    "resend all": lambda it, _: resend(it),
    "update": lambda it, number: it.execute(update(ARRIVAL).where(ARRIVAL.c.id == number).values(state="x")).rowcount,
    "delete": lambda it, _: it.execute(delete(INSTANCE)).rowcount,
    "returning": lambda it, _: len(it.execute(update(JOB).values(error="x").returning(JOB.c.id)).all()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_of_another_project_is_not_changed(empty_database: str, name: str) -> None:
    engine = open_database(empty_database)
    SCHEMA.create_all(engine)
    fill(engine, PROJECTS)
    others = [
        select(JOB).where(JOB.c.project != "a"),
        select(ARRIVAL).where(ARRIVAL.c.project != "a"),
        select(DELIVERY).where(DELIVERY.c.destination != "to a"),
        select(INSTANCE).where(INSTANCE.c.arrival_id % 3 != 0),
    ]
    with engine.connect() as connection:
        before = [rows(connection, one) for one in others]
    changed = 0
    for number in IDS:
        with seeing(engine, frozenset("a")).begin() as connection:
            changed += int(CHANGES[name](connection, number))
    assert changed
    with engine.connect() as connection:
        assert [rows(connection, one) for one in others] == before
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (text("select * from job"), "of kind TextClause can't be narrowed"),
        (select(text("id")).select_from(text("job")), "FROM clause of kind TextClause can't be narrowed"),
        (select(AUDIT), "rows of audit are of no project"),
        (select(JOB.c.id).where(exists().where(WATCHED.c.id == JOB.c.id)), "rows of watched are of no project"),
        (select(JOB.c.id).outerjoin(ARRIVAL), "an outer join to rows of arrival can't be narrowed"),
        (insert(JOB).values(project="a"), "rows of job are not added by who sees some projects only"),
        (insert(ARRIVAL).values(project="b"), "rows of arrival are not added"),
        (insert(AUDIT).from_select(["subject"], select(JOB.c.error)), "can't be narrowed"),
    ],
)
def test_what_can_not_be_narrowed_is_not_executed(
    node: dict[tuple[str, ...], Engine], statement: Any, words: str
) -> None:
    with seeing(node[PROJECTS], frozenset("a")).connect() as connection, pytest.raises(TypeError, match=words):
        connection.execute(statement)


@pytest.mark.parametrize("project", ["a", "b"])
def test_a_job_is_added_to_ones_own_project_alone(empty_database: str, project: str) -> None:
    engine = open_database(empty_database)
    SCHEMA.create_all(engine)
    new = [NewJob(source="/in", pipeline="p", memory_mb=1, cores=1, project=one) for one in ("a", project)]
    with seeing(engine, frozenset("a")).begin() as connection:
        if project == "b":
            with pytest.raises(TypeError, match="rows of job are not added"):
                submit_all(connection, new, NOW)
        else:
            assert [job.project for job in list_jobs(connection).jobs] == []
            submit_all(connection, new, NOW)
            assert [job.folder for job in list_jobs(connection).jobs] == ["runs/2", "runs/1"]
    engine.dispose()


@pytest.mark.parametrize("table", [DELIVERY, NOTICE, PRIOR], ids=str)
def test_the_latest_rows_of_jobs_are_found_by_their_key(tmp_path: Path, table: Table) -> None:
    """Nothing is sorted, and jobs are looked up one by one: the whole table is not read for a page of it."""
    engine = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    SCHEMA.create_all(engine)
    page = narrowed(select(table.c.id).order_by(table.c.id.desc()).limit(100), frozenset("a"))
    with engine.connect() as connection:
        compiled = str(page.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = [str(row[3]) for row in connection.exec_driver_sql(f"explain query plan {compiled}")]
    engine.dispose()
    assert plan[0].startswith(f"SCAN {table}")
    assert not [step for step in plan if "TEMP B-TREE" in step]
    assert [step for step in plan if "SEARCH job USING INTEGER PRIMARY KEY" in step]


def test_each_table_is_one_kind_or_another() -> None:
    kinds = [*OWNED, *NOBODYS, *OF_NO_PROJECT]
    assert sorted(table.name for table in kinds) == sorted(SCHEMA.tables)


def test_a_statement_that_must_see_all_says_so(node: dict[tuple[str, ...], Engine]) -> None:
    statement = select(func.count()).select_from(JOB)
    with seeing(node[PROJECTS], frozenset()).connect() as connection:
        assert connection.execute(statement).scalar() == 0
        assert connection.execute(statement.execution_options(**EVERY_PROJECT)).scalar() == len(IDS)


def test_those_statements_are_counted() -> None:
    """Each of them is looked at by whoever adds one: its answer may decide, and is told to nobody."""
    source = Path(__file__).resolve().parents[1] / "src" / "carina"
    uses = {
        file.relative_to(source).as_posix(): number
        for file in source.rglob("*.py")
        if (number := file.read_text().count("(**EVERY_PROJECT)"))
    }
    known = (
        "deliver/ledger.py",
        "receive/parting.py",
        "receive/project.py",
        "service/access/members.py",
        "service/uploads.py",
    )
    assert uses == dict.fromkeys(known, 1)
