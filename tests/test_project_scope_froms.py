"""The FROM clauses by which statements are narrowed are those that SQLAlchemy gives, without compiling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Select, event, exists, select
from sqlalchemy.sql.visitors import iterate

from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB
from carina.database.project_scope import final_froms
from served_nodes import add_job, opened, serving

JOBS = JOB.alias("jobs")
OTHERS: tuple[Select[Any], ...] = (
    select(JOB.c.id).where(JOB.c.arrival_id == ARRIVAL.c.id),
    select(JOB).outerjoin(ARRIVAL, ARRIVAL.c.id == JOB.c.arrival_id).join_from(JOB, DELIVERY),
    select(JOBS.c.id).where(exists().where(JOBS.c.arrival_id == INSTANCE.c.arrival_id)),
    select(select(JOB.c.id).where(JOB.c.id > 1).subquery()),
    select(select(JOB).cte("them").c.id).select_from(ARRIVAL.join(INSTANCE)),
    select(JOB.c.id).where(JOB.c.id.in_(select(DELIVERY.c.job_id).where(DELIVERY.c.job_id == JOB.c.id).correlate(JOB))),
)


def test_froms_are_those_of_sqlalchemy_for_whatever_a_node_asks(tmp_path: Path) -> None:
    node = opened(tmp_path)
    job = add_job(node)
    asked: list[Any] = [*OTHERS]
    event.listen(node.engine, "before_execute", lambda *given: asked.append(given[1]))
    with serving(node) as url:
        for path in ("/", "/?state=faulted", "/projects", "/projects/default", f"/jobs/{job}", "/api/v1/deliveries"):
            assert httpx.get(f"{url}{path}").status_code == 200
    selects = [part for statement in asked for part in iterate(statement) if isinstance(part, Select)]
    assert len(selects) > 30
    for one in selects:
        pairs = zip(final_froms(one), one.get_final_froms(), strict=True)
        assert all(ours.compare(theirs) for ours, theirs in pairs), str(one)
