"""Which projects there are: those that sources name, and those that somebody made."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, Engine, insert, select, update

from carina.database import ARRIVAL, JOB, PROJECT, database_now, read_only
from carina.database.one_series import UnderUids, is_of_series
from carina.errors import BadConfig


def project_names(connection: Connection) -> Sequence[str]:
    """Every project, by name."""
    return list(connection.execute(select(PROJECT.c.name).order_by(PROJECT.c.name)).scalars())


def ensure_projects(engine: Engine, names: Collection[str]) -> None:
    """Let there be projects of these names."""
    with read_only(engine) as connection:
        if not set(names) - set(project_names(connection)):
            return
    with engine.begin() as connection:
        for name in sorted(set(names) - set(project_names(connection))):
            connection.execute(insert(PROJECT), {"name": name, "created_at": database_now(connection)})


def check_project(connection: Connection, name: str) -> None:
    """See that there is a project.

    Raises:
        BadConfig: there is none of this name.
    """
    known = project_names(connection)
    if name not in known:
        words = "make it on the page Projects, or name it as the project of a source"
        raise BadConfig("project.unknown", f"there is no project {name!r}; known: {', '.join(known)}; {words}.")


def assign_series(connection: Connection, one: UnderUids, source: str, project: str) -> None:
    """Put everything that came of a series from a source, and the jobs on it, into a project."""
    same = is_of_series(one) & (ARRIVAL.c.source == source)
    its_jobs = JOB.c.arrival_id.in_(select(ARRIVAL.c.id).where(same))
    connection.execute(update(JOB).where(its_jobs).values(project=project))
    connection.execute(update(ARRIVAL).where(same).values(project=project))


def assign_job(connection: Connection, job_id: int, project: str) -> None:
    """Put a job that was handed in by path into a project."""
    connection.execute(update(JOB).where(JOB.c.id == job_id, JOB.c.arrival_id.is_(None)).values(project=project))
