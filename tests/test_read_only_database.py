"""A server's database that may only be read for a while, as after a fail-over: it is away, no job pays for that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import OperationalError

from carina.database import JOB, database_now, is_away, outage_of, read_only
from carina.jobs.queue import NewJob, Room, claim, submit
from carina.receive.part import unwritable_row
from carina.service.app import web_app
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.serve import node_of
from databases import new_database
from served_nodes import settings_of
from test_own_database import asked

psycopg = pytest.importorskip("psycopg")

SAID = "the database can't be used (its server lets nothing be written now: it is a standby, or set to read only)"

STATEMENTS = [
    insert(JOB).values(id=4711),
    update(JOB).values(attempt=7),
    delete(JOB),
    select(JOB.c.id).with_for_update(),
]


@pytest.fixture
def node(postgresql: str, tmp_path: Path) -> Iterator[RunningNode]:
    settings = settings_of(tmp_path)
    of_server = msgspec.structs.replace(settings.node, database=new_database(postgresql, "only_read"))
    made = node_of(msgspec.structs.replace(settings, node=of_server))
    yield made
    made.engine.dispose()
    with psycopg.connect(postgresql.replace("+psycopg", "") + "postgres", autocommit=True) as other:
        other.execute("drop database only_read with (force)")


def set_read_only(postgresql: str, engine: Engine, *, on: bool) -> None:
    """All that connect from now on can only read, or write again; who is connected is cut off when writes end."""
    with psycopg.connect(postgresql.replace("+psycopg", "") + "postgres", autocommit=True) as other:
        other.execute(f"alter database only_read {'set' if on else 'reset'} default_transaction_read_only{'=on' * on}")
    if on:
        engine.dispose()


def test_whatever_is_written_finds_it_away_in_the_same_words_and_resumes_by_itself(
    postgresql: str, node: RunningNode
) -> None:
    with node.engine.begin() as connection:
        submit(connection, NewJob(source="x", pipeline="default", memory_mb=100, cores=1), database_now(connection))
    app, room = web_app(node), Room(memory_mb=1000, cores=1)
    set_read_only(postgresql, node.engine, on=True)
    for statement in STATEMENTS:
        with pytest.raises(OperationalError, match="standby") as caught, node.engine.begin() as connection:
            connection.execute(statement)
        assert is_away(caught.value)
        outage = outage_of(caught.value, node.folder)
        assert outage is not None and (outage.code, outage.message) == ("node.database-away", f"{SAID}.")
        assert unwritable_row(node.folder, caught.value).status == 0xA700
    with pytest.raises(OperationalError, match="standby"), node.engine.begin() as connection:
        claim(connection, "worker", room, room, database_now(connection))
    with read_only(node.engine) as reading:
        assert reading.execute(select(JOB.c.attempt)).scalar_one() == 0
    for path in ("/", "/api/v1/jobs"):
        assert asked(app, path).status_code in (200, 503)
    with read_only(node.engine) as reading:
        reading.execute(select(JOB.c.id)).all()
    set_read_only(postgresql, node.engine, on=False)
    with pytest.raises(OperationalError, match="standby"), node.engine.begin() as connection:
        connection.execute(update(JOB).values(attempt=7))  # the last connection from before, which is given up
    with node.engine.begin() as connection:
        connection.execute(update(JOB).values(attempt=7))
    assert not [one for one in readiness(node).troubles if one.startswith("database")]
