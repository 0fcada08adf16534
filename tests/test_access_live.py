"""What is sent for long ends with that by which it was let in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from access_nodes import Guarded, guarded
from carina.database import ACCOUNT, TOKEN
from carina.service.access.accounts import set_role
from carina.service.access.roles import Role
from carina.service.access.sessions import revoke_token
from carina.service.pages.live import PAGE_IS_OVER
from served_nodes import add_job


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as served:
        yield served


def test_a_page_that_stays_open_keeps_no_session_alive_and_ends_with_it(node: Guarded) -> None:
    client = node.person("reader")
    node.clock.wait(minutes=20)
    with client.stream("GET", "/live", headers={"accept": "text/event-stream"}) as live:
        parts = live.iter_text()
        assert "Jobs" in next(parts)
        node.clock.wait(minutes=11)
        assert "".join(parts).removeprefix(": still here").strip() == PAGE_IS_OVER.strip()
    assert client.get("/live", headers={"accept": "text/event-stream"}).status_code == 401


@pytest.mark.parametrize("program", ["reader", "operator", "reader of default"])
@pytest.mark.parametrize("path", ["/live", "/jobs/{job}/live", "/projects/default/live"])
def test_what_is_sent_for_long_ends_with_the_token(node: Guarded, program: str, path: str) -> None:
    client = node.program(program)
    with client.stream("GET", path.format(job=node.job), headers={"accept": "text/event-stream"}) as live:
        assert live.status_code == 200
        parts = live.iter_text()
        next(parts)
        name = program.replace(" of default", ".inside") if " of " in program else f"{program}.program"
        with node.node.engine.begin() as connection:
            revoke_token(connection, connection.execute(select(TOKEN.c.id).where(TOKEN.c.name == name)).scalar_one())
        add_job(node.node, pipeline="after-it-was-revoked")
        rest = "".join(parts)
        assert "after-it-was-revoked" not in rest and rest.endswith(PAGE_IS_OVER)
    assert client.get("/api/v1/jobs").status_code == 401


def test_a_change_of_role_ends_what_is_sent_for_long(node: Guarded) -> None:
    client = node.person("operator", accept="text/event-stream")
    with client.stream("GET", "/live") as live:
        parts = live.iter_text()
        next(parts)
        with node.node.engine.connect() as connection:
            operator = connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == "operator.one")).scalar_one()
        with node.node.engine.begin() as connection:
            set_role(connection, operator, Role.READER)
        assert "".join(parts).removeprefix(": still here").strip() == PAGE_IS_OVER.strip()
