"""Versions of the node's database: from nothing, from the first one with jobs waiting, from a later one."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from carina.database import AUDIT, JOB, NOTICE, SCHEMA, open_database
from carina.database.upgrade import SCHEMA_VERSION, migrations, schema_version, upgrade_schema
from carina.errors import BadConfig
from databases import new_database


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(f"sqlite:///{tmp_path}/node.sqlite")


def test_migrations_lead_to_the_schema(engine: Engine) -> None:
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert not compare_metadata(MigrationContext.configure(connection), SCHEMA)


def test_versions_follow_each_other_by_number(engine: Engine) -> None:
    """A message says up to which version a program knows, and files are read in the order of their names."""
    with engine.begin() as connection:
        every = list(ScriptDirectory.from_config(migrations(connection)).walk_revisions())[::-1]
    numbers = [one.revision for one in every]
    assert numbers == [f"{number:04}" for number in range(1, len(every) + 1)]
    assert numbers[-1] == SCHEMA_VERSION
    assert [one.down_revision for one in every] == [None, *numbers[:-1]]
    assert [Path(one.path).name.partition("_")[0] for one in every] == numbers
    assert all(f"to {one.revision}" in (one.module.upgrade.__doc__ or "") for one in every[1:])


def test_what_a_database_says_of_its_version_is_what_alembic_reads(engine: Engine) -> None:
    with engine.connect() as connection:
        assert schema_version(connection) is None
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert schema_version(connection) == MigrationContext.configure(connection).get_current_revision()


def test_where_nothing_is_to_upgrade_no_migrations_are_loaded(engine: Engine, tmp_path: Path) -> None:
    """They take 8 MB of a server."""
    upgrade_schema(engine)
    program = f"""
import sys
from carina.database import open_database, upgrade_schema
upgrade_schema(open_database("sqlite:///{tmp_path}/node.sqlite"))
assert "alembic" not in sys.modules
import carina.service.app, carina.cli.serve, carina.receive.listener
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_preparing_twice_changes_nothing(engine: Engine) -> None:
    upgrade_schema(engine)
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(select(JOB)).all() == []


def test_jobs_that_wait_in_the_first_version_wait_in_todays(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0001")
        for priority in (0, 3):
            values = f"('/in', '', 'default', '', 'pending', '', {priority}, 0, 0, '', 0, 1000, 1, :now, '', '')"
            columns = (
                "source, series_uid, pipeline, folder, state, ended, priority, attempt, crashes, worker, cancel, "
                "memory_mb, cores, created_at, error_code, error"
            )
            connection.execute(text(f"insert into job ({columns}) values {values}"), {"now": datetime.now(UTC)})
    upgrade_schema(engine)
    with engine.connect() as connection:
        rows = connection.execute(select(JOB).order_by(JOB.c.priority)).all()
    assert [(row.id, row.priority, row.retries, row.destinations) for row in rows] == [(2, 0, 0, "[]"), (1, 3, 0, "[]")]


def test_a_later_version_is_refused(engine: Engine) -> None:
    upgrade_schema(engine)
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(BadConfig, match=r"has version 9999, this program knows up to \d{4}"):
        upgrade_schema(engine)


def test_a_failed_upgrade_leaves_the_earlier_version(engine: Engine) -> None:
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0001")
        connection.execute(text("drop index ix_job_queue"))
    with pytest.raises(Exception, match="ix_job_queue"):
        upgrade_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(text("select version_num from alembic_version")).scalar_one() == "0001"
        assert "ask" not in [row[1] for row in connection.execute(text("pragma table_info(delivery)"))]


REFUSED = "rows of the audit trail are added, never changed or removed"
DEEDS = ("update audit set who = 'nobody'", "delete from audit", "delete from audit where id = 1")
OF_SQLITE = "insert or replace into audit (id, at, who, action, subject) values (1, '2026-01-01', 'b', 'c', 'd')"


def refuses(engine: Engine, *deeds: str) -> None:
    """A database brought from the version before keeps the trail, takes more of it, and changes nothing of it."""
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0012")
        connection.execute(insert(AUDIT).values(at=datetime.now(UTC), who="a", action="b", subject="c"))
    upgrade_schema(engine)
    with engine.begin() as connection:
        connection.execute(insert(AUDIT).values(at=datetime.now(UTC), who="a", action="b", subject="d"))
    for deed in deeds:
        with pytest.raises(IntegrityError, match=REFUSED), engine.begin() as connection:
            connection.execute(text(deed))
    with engine.connect() as connection:
        rows = connection.execute(select(AUDIT.c.who, AUDIT.c.subject).order_by(AUDIT.c.id)).all()
    assert list(map(tuple, rows)) == [("a", "c"), ("a", "d")]


def test_the_trail_is_only_added_to(engine: Engine) -> None:
    refuses(engine, *DEEDS, OF_SQLITE)


def test_the_trail_of_a_server_is_only_added_to(postgresql: str) -> None:
    engine = open_database(new_database(postgresql, "trail"))
    refuses(engine, *DEEDS, "truncate audit")
    engine.dispose()


def tells_endings(engine: Engine) -> None:
    """Of jobs that were told of before: one that stopped is not told again, one that runs again is when it ends."""
    now = datetime.now(UTC)
    with engine.begin() as connection:
        command.upgrade(migrations(connection), "0021")
        for number, state in enumerate(("stopped", "pending", "running"), 1):
            numbers = {"id": number, "attempt": 2, "memory_mb": 1, "cores": 1, "priority": 1}
            row = {"source": "x", "series_uid": "", "pipeline": "p", "folder": "", "ended": "", "worker": ""}
            connection.execute(insert(JOB).values(**numbers, **row, state=state, created_at=now))
            told = f"({number}, {number}, '', 'sent', 1, '', :now)"
            columns = "id, job_id, body, state, attempts, error, created_at"
            connection.execute(text(f"insert into notice ({columns}) values {told}"), {"now": now})
    upgrade_schema(engine)
    with engine.connect() as connection:
        assert connection.execute(select(NOTICE.c.attempt).order_by(NOTICE.c.id)).scalars().all() == [2, 2, 1]
    twice = insert(NOTICE).values(job_id=1, attempt=2, body="", state="sent", created_at=now)
    with pytest.raises(IntegrityError, match="notice"), engine.begin() as connection:
        connection.execute(twice)
    with engine.begin() as connection:
        connection.execute(twice.values(id=9, attempt=3))


def test_an_ending_that_was_told_is_not_told_again(engine: Engine) -> None:
    tells_endings(engine)


def test_nor_of_a_servers(postgresql: str) -> None:
    engine = open_database(new_database(postgresql, "endings"))
    tells_endings(engine)
    engine.dispose()


def test_a_disk_without_a_byte_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.sqlite").mkdir()  # which can't be opened either
    monkeypatch.setattr("carina.database.engine.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(BadConfig, match=r"no space is left there \(.*\), and SQLite needs some .*: make room"):
        open_database(f"sqlite:///{tmp_path}/node.sqlite")
