"""The node's database: refusals in one line, writers that wait for each other, what is committed stays."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import DateTime, Engine, func, insert, inspect, select
from sqlalchemy.exc import StatementError

from carina.database import AUDIT, DELIVERY, SCHEMA, open_database
from carina.database.utc import UtcTime
from carina.errors import BadConfig


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    SCHEMA.create_all(made)
    yield made
    made.dispose()


def test_sqlite_flushes_every_transaction(engine: Engine) -> None:
    with engine.connect() as connection:
        found = {key: connection.exec_driver_sql(f"pragma {key}").scalar() for key in ("journal_mode", "synchronous")}
    assert found == {"journal_mode": "wal", "synchronous": 2}


def test_writers_wait_for_each_other(engine: Engine) -> None:
    def add(who: str) -> None:
        for number in range(20):
            with engine.begin() as connection:
                count = connection.execute(select(func.count()).select_from(AUDIT)).scalar_one()
                row = {"at": datetime.now(UTC), "who": who, "action": "ran", "subject": f"{count} {number}"}
                connection.execute(insert(AUDIT), row)

    threads = [threading.Thread(target=add, args=(f"worker {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        counts = [int(subject.split()[0]) for subject in connection.execute(select(AUDIT.c.subject)).scalars()]
    assert sorted(counts) == list(range(80))


def test_every_table_and_column_of_state_says_what_it_means() -> None:
    for table in SCHEMA.sorted_tables:
        assert table.comment
        assert all(column.comment for column in table.columns if column.name in ("state", "ended"))


def test_no_table_has_room_for_a_patient(engine: Engine) -> None:
    """But for two digests, each a quarter of an SHA-256, by which one patient's instances are told from another's."""
    names = [column["name"] for table in SCHEMA.tables for column in inspect(engine).get_columns(table)]
    assert [name for name in names if "patient" in name or "birth" in name] == ["patients"]
    (digests,) = [column for column in inspect(engine).get_columns("arrival") if column["name"] == "patients"]
    assert str(digests["type"]) == "VARCHAR(33)"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", r"expected postgresql.* or sqlite:///FILE\.$"),
        ("node.sqlite", r"expected postgresql.* or sqlite:///FILE\.$"),
        ("oracle://host/x", r"expected postgresql.* or sqlite:///FILE\.$"),
        ("sqlite:////no/such/folder/node.sqlite", r"can't be opened .*expected sqlite:///FILE"),
    ],
)
def test_what_is_no_database_is_refused_in_one_line(url: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words) as caught:
        open_database(url)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(BadConfig) as caught:
        open_database("postgresql+psycopg://carina:secret@127.0.0.1:1/node")
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(BadConfig, match=r"psycopg://host/name: can't be opened \(.*psycopg.*carina-ct\[postgres\]"):
        open_database("postgresql+psycopg://user:secret@host/name")


def test_every_time_comes_out_in_utc_whatever_zone_the_server_has(empty_database: str) -> None:
    if empty_database.startswith("postgresql"):
        setting = open_database(empty_database)
        with setting.begin() as connection:
            connection.exec_driver_sql(f"alter database {setting.url.database} set timezone to 'America/New_York'")
        setting.dispose()
    node = open_database(empty_database)
    SCHEMA.create_all(node)
    at, known = datetime(2026, 7, 1, 23, 30, tzinfo=UTC), {"who": "web", "action": "looked", "subject": "job 1"}
    east = at.astimezone(timezone(timedelta(hours=9)))
    with node.begin() as connection:
        connection.execute(insert(AUDIT), [known | {"at": at}, known | {"at": east}])
        with pytest.raises(StatementError, match="has no zone, expected a time in UTC"):
            connection.execute(insert(AUDIT), known | {"at": at.replace(tzinfo=None)})
        times = connection.execute(select(AUDIT.c.at)).scalars().all()
        assert [(one, one.utcoffset()) for one in times] == [(at, timedelta(0))] * 2
        assert connection.execute(select(func.max(AUDIT.c.at))).scalar_one().utcoffset() == timedelta(0)
    node.dispose()


def test_no_time_of_the_schema_is_of_another_type() -> None:
    times = [column for table in SCHEMA.tables.values() for column in table.columns if column.name.endswith("_at")]
    assert len(times) > 15
    assert all(isinstance(column.type, UtcTime) for column in [*times, AUDIT.c.at, DELIVERY.c.doubt_until])
    assert not [c for table in SCHEMA.tables.values() for c in table.columns if type(c.type) is DateTime]
