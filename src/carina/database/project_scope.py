"""Statements that see some projects only, whoever wrote them.

A connection of an engine that ``seeing`` gives carries the names of projects. Each statement on it is narrowed before
it is executed: every table that it reads or changes is as if it held the rows of these projects and no others. A query
in which nobody thought of projects then finds too little, never too much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Alias,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    FromClause,
    Insert,
    Join,
    Select,
    Subquery,
    Table,
    Update,
    event,
    exists,
    or_,
    select,
)
from sqlalchemy.sql.selectable import CTE, FromGrouping, SelectState
from sqlalchemy.sql.visitors import cloned_traverse

from carina.database.tables import (
    ACCOUNT,
    ARRIVAL,
    AUDIT,
    DELIVERY,
    EARLIER_QUESTION,
    IDENTITY,
    INSTANCE,
    JOB,
    MEMBER,
    NOTICE,
    OWED_REPORT,
    PRIOR,
    PRIOR_SERIES,
    PROJECT,
    REMOVAL,
    SESSION,
    TOKEN,
    WATCHED,
)

Names = frozenset[str]
OwnedBy = Callable[[FromClause, Names], ColumnElement[bool]]

_SEEN = "carina_projects"
_WHOLE = "carina_every_project"

EVERY_PROJECT: Mapping[str, Any] = {_WHOLE: True}
"""Execution options of a statement that must see every project: its answer decides, and is told to nobody."""


def _is_in(table: FromClause, projects: Names) -> ColumnElement[bool]:
    return table.c.project.in_(sorted(projects))


def _ids(table: Table, projects: Names) -> Select[Any]:
    return select(table.c.id).where(_is_in(table, projects)).correlate(None)


def _of_arrival(table: FromClause, projects: Names) -> ColumnElement[bool]:
    """Asked row by row, so that what comes of a few arrivals is found by their keys."""
    return exists().where(ARRIVAL.c.id == table.c.arrival_id, _is_in(ARRIVAL, projects)).correlate(table)


def _of_job(table: FromClause, projects: Names) -> ColumnElement[bool]:
    """The same; the latest few of many rows are found by their own key, and nothing is sorted."""
    return exists().where(JOB.c.id == table.c.job_id, _is_in(JOB, projects)).correlate(table)


def _of_delivery(table: FromClause, projects: Names) -> ColumnElement[bool]:
    return table.c.delivery_id.in_(select(DELIVERY.c.id).where(_of_job(DELIVERY, projects)).correlate(None))


def _of_prior(table: FromClause, projects: Names) -> ColumnElement[bool]:
    return table.c.prior_id.in_(select(PRIOR.c.id).where(_of_job(PRIOR, projects)).correlate(None))


def _of_subject(table: FromClause, projects: Names) -> ColumnElement[bool]:
    came = (table.c.kind == "incoming") & table.c.subject_id.in_(_ids(ARRIVAL, projects))
    return or_(came, (table.c.kind == "run") & table.c.subject_id.in_(_ids(JOB, projects)))


OWNED: Mapping[Table, OwnedBy] = {
    ARRIVAL: _is_in,
    JOB: _is_in,
    MEMBER: _is_in,
    OWED_REPORT: _is_in,
    PROJECT: lambda table, projects: table.c.name.in_(sorted(projects)),
    INSTANCE: _of_arrival,
    DELIVERY: _of_job,
    EARLIER_QUESTION: _of_delivery,
    NOTICE: _of_job,
    PRIOR: _of_job,
    PRIOR_SERIES: _of_prior,
    REMOVAL: _of_subject,
}
"""The tables whose rows are of a project, and which rows are."""

NOBODYS = frozenset({AUDIT, WATCHED})
"""Tables whose rows can't be told apart by project: they are written, and not read."""

OF_NO_PROJECT = frozenset({ACCOUNT, IDENTITY, SESSION, TOKEN})
"""Tables about people and programs, or the node as a whole, and not about what they work with."""

ADDED = frozenset({AUDIT, DELIVERY, MEMBER}) | OF_NO_PROJECT - {IDENTITY}
"""Tables that somebody who sees some projects only may add rows to, of what they found there."""


def seeing(engine: Engine, projects: Names) -> Engine:
    """An engine on the same database whose connections see these projects only."""
    return engine.execution_options(**{_SEEN: projects})


def each_project(connection: Connection, table: Table) -> list[list[ColumnElement[bool]]]:
    """Conditions on a table, one list for each project that a connection sees, or an empty one where it sees all.

    Of one project the latest rows are found through an index that begins with it; of several at once, all are sorted.
    """
    projects: Names | None = connection.get_execution_options().get(_SEEN)
    return [[]] if projects is None else [[table.c.project == name] for name in sorted(projects)]


def narrow_statements(engine: Engine) -> None:
    """Let an engine narrow what is executed on it."""
    event.listen(engine, "before_execute", _before_execute, retval=True)


def _before_execute(
    _: Connection, statement: Any, multiple: Any, single: Any, options: Mapping[str, Any]
) -> tuple[Any, Any, Any]:
    projects = options.get(_SEEN)
    if projects is not None and not options.get(_WHOLE):
        if isinstance(statement, Insert):
            _check_added(statement, projects, multiple or [single])
        else:
            statement = narrowed(statement, projects)
    return statement, multiple, single


def _check_added(statement: Insert, projects: Names, rows: Sequence[Mapping[str, Any]]) -> None:
    if statement.select is not None:
        raise TypeError("rows that are selected can't be narrowed to projects while they are added")
    is_own = statement.table is JOB and all(row.get("project") in projects for row in rows)
    if statement.table not in ADDED and not is_own:
        raise TypeError(f"rows of {statement.table} are not added by who sees some projects only")


def narrowed(statement: Any, projects: Names) -> Any:
    """A statement as it is executed for somebody who sees these projects.

    Raises:
        TypeError: it is of a kind that can't be narrowed, plain text of SQL for one.
    """
    if not isinstance(statement, Select | Update | Delete):
        raise TypeError(f"a statement of kind {type(statement).__name__} can't be narrowed to projects")

    def narrow_select(inner: Select[Any]) -> None:
        for clause in final_froms(inner):
            inner._where_criteria += tuple(_criteria(clause, projects))

    def narrow_change(inner: Update | Delete) -> None:
        inner._where_criteria += tuple(_criteria(inner.table, projects))

    visitors: dict[str, Callable[[Any], None]] = {"select": narrow_select}
    return cloned_traverse(statement, {}, visitors | {"update": narrow_change, "delete": narrow_change})


def final_froms(statement: Select[Any]) -> Sequence[FromClause]:
    """What ``get_final_froms`` gives, which compiles the whole statement first: most of what narrowing one took."""
    froms: Sequence[FromClause] = SelectState(statement, None)._get_display_froms()  # type: ignore[arg-type]
    return froms


def _criteria(clause: FromClause, projects: Names) -> Iterator[ColumnElement[bool]]:
    """What the rows of a FROM clause must fulfil."""
    if isinstance(clause, Join):
        yield from _criteria(clause.left, projects)
        of_right = list(_criteria(clause.right, projects))
        if of_right and (clause.isouter or clause.full):  # its rows without a partner would be lost by a condition
            raise TypeError(f"an outer join to rows of {clause.right} can't be narrowed to projects")
        yield from of_right
    elif isinstance(clause, FromGrouping):
        yield from _criteria(clause.element, projects)
    elif isinstance(clause, Table):
        yield from _of_table(clause, clause, projects)
    elif isinstance(clause, Subquery | CTE):
        return  # what is selected inside is narrowed there
    elif isinstance(clause, Alias) and isinstance(clause.element, Table):
        yield from _of_table(clause.element, clause, projects)
    else:
        raise TypeError(f"a FROM clause of kind {type(clause).__name__} can't be narrowed to projects")


def _of_table(table: Table, named: FromClause, projects: Names) -> Iterator[ColumnElement[bool]]:
    if table in OWNED:
        yield OWNED[table](named, projects)
    elif table not in OF_NO_PROJECT:
        raise TypeError(f"rows of {table} are of no project: who sees some projects only can't read them")
