"""A server's database that is emptied or replaced under a running node: nothing dies, all resumes with its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from carina.database import IDENTITY, JOB, OTHER_DATABASE, Outages, outage_of, own_database, read_only
from carina.database.outage import ANOTHER
from carina.errors import BadConfig
from carina.receive.part import unwritable_row
from carina.service.app import web_app
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.serve import node_of
from databases import new_database
from served_nodes import settings_of

psycopg = pytest.importorskip("psycopg")

Statements = Callable[[str], tuple[list[str], list[str]]]


def replaced(name: str) -> tuple[list[str], list[str]]:
    """Its connections are ended and its name is another's."""
    ended = (
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    )
    away = [ended, f'alter database "{name}" rename to "{name}_kept"', f'create database "{name}"']
    return away, [f'drop database "{name}" with (force)', f'alter database "{name}_kept" rename to "{name}"']


KINDS: dict[str, tuple[bool, Statements]] = {
    "replaced": (True, replaced),
    "emptied": (
        False,
        lambda _: (
            ["alter schema public rename to kept", "create schema public"],
            ["drop schema public", "alter schema kept rename to public"],
        ),
    ),
    "without tables": (
        False,
        lambda _: (["alter schema public rename to kept"], ["alter schema kept rename to public"]),
    ),
    "without rows": (
        False,
        lambda _: (
            ["create table kept as select * from identity", "delete from identity"],
            ["insert into identity select * from kept"],
        ),
    ),
    "another's rows": (
        False,
        lambda _: (
            ["create table kept as select * from identity", "update identity set uuid = 'f00'"],
            ["update identity set uuid = (select uuid from kept)"],
        ),
    ),
}
"""What becomes of a database, from outside it or within, and how it is taken back."""


def asked(app: Starlette, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers={"accept": "text/html"})

    return asyncio.run(ask())


def check_said_once(node: RunningNode) -> None:
    """Whatever parts have met it, health has one sentence, with all their names in front."""
    for name in ("courier", "retention"):
        node.outages[name] = Outages(name, node.folder)
        node.outages[name].tell(BadConfig(OTHER_DATABASE, f"{ANOTHER}: bring its own back, or stop the node."))
    (told,) = (one for one in readiness(node).troubles if ANOTHER in one)
    assert told == f"courier, retention, database: {ANOTHER}: bring its own back, or stop the node"
    node.outages.clear()


def check_waits(node: RunningNode, app: Starlette) -> None:
    """It is told everywhere, and nothing is accepted."""
    for _ in range(3):  # none of its connections, kept or new
        with pytest.raises(OperationalError, match="another database") as caught, read_only(node.engine) as reading:
            reading.execute(select(JOB.c.id)).all()
    outage = outage_of(caught.value, node.folder)
    assert outage is not None and outage.code == OTHER_DATABASE
    assert unwritable_row(node.folder, caught.value).status == 0xA700
    check_said_once(node)
    for path in ("/", "/api/v1/jobs"):
        answer = asked(app, path)
        assert (answer.status_code, OTHER_DATABASE in answer.text) == (503, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_waits_while_another_database_is_in_the_place_of_its_own(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(own_database, "LOOKED_AT_S", 0.0)
    is_outside, statements = KINDS[kind]
    name = f"own_{kind.replace(' ', '_').replace(chr(39), '')}"
    settings = settings_of(tmp_path)
    of_server = msgspec.structs.replace(settings.node, database=new_database(postgresql, name))
    node = node_of(msgspec.structs.replace(settings, node=of_server))
    app = web_app(node)
    place = postgresql.replace("+psycopg", "") + ("postgres" if is_outside else name)
    away, back = statements(name)
    assert asked(app, "/").status_code == 200
    with psycopg.connect(place, autocommit=True) as other:
        for one in away:
            other.execute(one)
        check_waits(node, app)
        for one in back:
            other.execute(one)
    with read_only(node.engine) as reading:
        assert reading.execute(select(IDENTITY.c.uuid)).scalar_one()
    assert asked(app, "/").status_code == 200
    assert not [one for one in readiness(node).troubles if one.startswith("database")]
    node.engine.dispose()


def test_what_is_lost_within_a_transaction_is_no_fault_of_what_was_asked(postgresql: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    of_server = msgspec.structs.replace(settings.node, database=new_database(postgresql, "own_lost"))
    node = node_of(msgspec.structs.replace(settings, node=of_server))
    with node.engine.connect() as reading:
        reading.rollback()
        with psycopg.connect(postgresql.replace("+psycopg", "") + "own_lost", autocommit=True) as other:
            other.execute("alter schema public rename to kept")
        with pytest.raises(OperationalError, match="another database"):
            reading.execute(select(JOB.c.id)).all()
    node.engine.dispose()
