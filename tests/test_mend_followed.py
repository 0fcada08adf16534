"""What follows on ``carina mend``: retention goes on, no number brings another's past, and nothing is sent unasked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select, update

from carina.config import NodeSettings, RetentionSettings, Settings
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, REMOVAL
from carina.deliver.ledger import RESTORED
from carina.jobs.places import open_node
from carina.jobs.queue import NewJob, submit
from carina.keeping.mend import mend_node
from carina.keeping.retention import Retention
from mendable import with_pages
from saved_nodes import PAGE

LONG_AGO = datetime(2026, 6, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 12, 1, 3, tzinfo=UTC)


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    """Three series whose jobs ended long ago, and a result of each that waits to be sent."""
    settings = Settings(node=NodeSettings(folder=str(tmp_path / "node")))
    engine = open_node(settings)
    for number in (1, 2, 3):
        with engine.begin() as connection:
            uids = {"series_uid": f"1.2.{number}", "study_uid": f"1.3.{number}"}
            came = {"source": "stow", "sender": "S", "state": "queued", "first_at": LONG_AGO, "last_at": LONG_AGO}
            connection.execute(insert(ARRIVAL).values(**uids, **came))
            held = {"sop_instance_uid": f"1.2.{number}.1", "sop_class_uid": "1.2", "path": f"incoming/{number}/a.dcm"}
            told = {"transfer_syntax_uid": "1.2", "sha256": f"{number:064x}", "bytes": 10, "accepted_at": LONG_AGO}
            connection.execute(insert(INSTANCE).values(arrival_id=number, source="stow", **held, **told))
            new = NewJob(source=f"incoming/{number}", pipeline="default", memory_mb=1, cores=1)
            job = submit(connection, new, LONG_AGO)
            ended = {"arrival_id": number, "state": "stopped", "ended": "healthy", "stopped_at": LONG_AGO, **uids}
            connection.execute(update(JOB).where(JOB.c.id == job).values(**ended))
        (Path(settings.node.folder) / f"incoming/{number}").mkdir(parents=True)
    engine.dispose()
    return settings


def retention(engine: Engine, node: Settings) -> object:
    bounds = RetentionSettings(incoming_days=30.0)
    return Retention(engine, Path(node.node.folder), bounds).round()


def lose(node: Settings, table: str) -> None:
    """Write zeros over the root page of a table, in which all its rows are."""
    file = Path(node.node.folder) / "node.sqlite"
    with closing(sqlite3.connect(file)) as plain:
        plain.execute("pragma wal_checkpoint(truncate)")
        ((page,),) = plain.execute("select rootpage from sqlite_master where name = ?", (table,))
        plain.execute("pragma journal_mode = delete")
    file.write_bytes(with_pages(file.read_bytes(), {page: bytes(PAGE)}))


def test_what_retention_removed_stays_removed_and_retention_goes_on(node: Settings) -> None:
    engine = open_node(node)
    retention(engine, node)
    engine.dispose()
    lose(node, "arrival")
    assert mend_node(node, NOW, "me") is not None
    engine = open_node(node)
    retention(engine, node)  # which an arrival that it removed before would stop
    with engine.connect() as connection:
        found = connection.execute(select(ARRIVAL.c.state, ARRIVAL.c.reason)).all()
    engine.dispose()
    assert [row.state for row in found] == ["removed"] * 3
    assert all(row.reason.startswith("removed: ") for row in found)


@pytest.mark.parametrize(("table", "kind"), [("job", "run"), ("arrival", "incoming")])
def test_a_number_that_is_given_again_has_no_past(node: Settings, table: str, kind: str) -> None:
    engine = open_node(node)
    with engine.begin() as connection:
        for number in (1, 99):
            row = {"kind": kind, "subject_id": number, "why": "older", "begun_at": LONG_AGO, "ended_at": LONG_AGO}
            connection.execute(insert(REMOVAL).values(**row))
        connection.execute(update(JOB).values(arrival_id=None))
    engine.dispose()
    lose(node, table)
    assert mend_node(node, NOW, "me") is not None
    engine = open_node(node)
    with engine.connect() as connection:
        assert connection.execute(select(REMOVAL.c.subject_id)).all() == []
    engine.dispose()


@pytest.mark.parametrize("table", ["job", "delivery", "audit"])
def test_nothing_is_sent_unasked_afterwards(node: Settings, table: str) -> None:
    engine = open_node(node)
    with engine.begin() as connection:
        for number in (1, 2):
            of = {"job_id": number, "destination": "PACS", "sop_class_uid": "1.2", "path": "p", "state": "waiting"}
            uids = {"sop_instance_uid": f"1.9.{number}", "created_at": LONG_AGO}
            connection.execute(insert(DELIVERY).values(**of, **uids))
    engine.dispose()
    lose(node, table)
    assert mend_node(node, NOW, "me") is not None
    assert (Path(node.node.folder) / RESTORED).is_file()
    engine = open_node(node)
    with engine.connect() as connection:
        asks = connection.execute(select(DELIVERY.c.ask)).scalars().all()
    engine.dispose()
    assert asks == {"job": [], "delivery": [], "audit": [0, 0]}[table]
