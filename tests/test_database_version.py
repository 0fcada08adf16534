"""A database's version: another one after every commit, whoever made it, and else the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event, insert, select

from carina.database import PROJECT, DataVersion, open_database, read_only, upgrade_schema
from carina.database.version import LOOK_AT_POSTGRESQL, LOOK_AT_SQLITE
from served_nodes import NOON

LOOKS = (LOOK_AT_POSTGRESQL, LOOK_AT_SQLITE)


@pytest.fixture
def engines(node_database: str) -> Iterator[tuple[Engine, Engine]]:
    """Two that know nothing of each other, as those of two processes."""
    here, there = open_database(node_database), open_database(node_database)
    upgrade_schema(here)
    yield here, there
    here.dispose()
    there.dispose()


def add(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(insert(PROJECT), {"name": name, "created_at": NOON})


def test_every_commit_makes_another_version_and_looking_makes_none(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    version = DataVersion(here)
    seen = [version.now()]
    for number, engine in enumerate((here, there, here, there)):
        add(engine, f"p{number}")
        seen.append(version.now())
        with read_only(engine) as connection:
            connection.execute(select(PROJECT)).all()
    assert len(set(seen)) == 5
    assert any(version.now() == version.now() for _ in range(50))  # a server may write for itself in between


def test_what_was_begun_before_a_look_and_committed_after_it_is_another_version(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    version = DataVersion(here)
    with there.begin() as connection:
        connection.execute(insert(PROJECT), {"name": "late", "created_at": NOON})
        before = version.now()
    assert version.now() != before


def test_a_look_is_shared_while_it_is_new(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    now_s, looks = 0.0, []
    version = DataVersion(here, lambda: now_s)
    event.listen(here, "before_cursor_execute", lambda *given: looks.append(given[2] in LOOKS))
    first = version.now()
    add(there, "new")
    now_s = 0.3
    assert version.now(0.4) == first
    assert sum(looks) == 1
    now_s = 0.4
    assert version.now(0.4) != first


def test_a_version_is_another_one_after_the_connection_was_lost(engines: tuple[Engine, Engine]) -> None:
    here, there = engines
    version = DataVersion(here)
    before = version.now()
    here.dispose()
    add(there, "meanwhile")
    assert version.now() != before
