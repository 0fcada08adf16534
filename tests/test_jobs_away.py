"""A database that is away, or recovers, while a job runs: the attempt is given back, and nothing counted against it."""

from __future__ import annotations

import socket
import sqlite3
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from carina.config import NodeSettings, Settings
from carina.database import database_now, is_away, open_database, upgrade_schema
from carina.jobs import execute as execute_module
from carina.jobs.attempt_process import EXECUTE
from carina.jobs.execute import execute
from carina.jobs.listing import Job, list_jobs
from carina.jobs.queue import NewJob, Room, claim, submit
from carina.jobs.worker import NODE_AWAY, Worker, World

NOT_ENCRYPTED = {80877103, 80877104}
"""What a client of PostgreSQL asks first: SSLRequest and GSSENCRequest."""

STARTING_UP = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"


@contextmanager
def recovering_postgresql() -> Iterator[str]:
    """A PostgreSQL that is starting up, as its clients see it; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_say_so, args=(listener,), daemon=True).start()
        yield f"postgresql+psycopg://carina@127.0.0.1:{listener.getsockname()[1]}/node"


def _say_so(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                while struct.unpack(">II", client.recv(8))[1] in NOT_ENCRYPTED:
                    client.sendall(b"N")
                client.sendall(b"E" + struct.pack(">I", 4 + len(STARTING_UP)) + STARTING_UP)


@pytest.fixture
def settings(node_database: str, tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(tmp_path), database=node_database, memory_gb=8, cores=4))


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = open_database(settings.node.database)
    upgrade_schema(made)
    with made.begin() as connection:
        submit(connection, NewJob(source="x", pipeline="default", memory_mb=100, cores=1), database_now(connection))
    yield made
    made.dispose()


def the_job(engine: Engine) -> Job:
    with engine.connect() as connection:
        return list_jobs(connection).jobs[0]


def test_a_process_that_finds_postgresql_recovering_says_so_and_ends(tmp_path: Path) -> None:
    with recovering_postgresql() as address:
        settings = Settings(node=NodeSettings(folder=str(tmp_path), database=address, memory_gb=8, cores=4))
        line = msgspec.json.encode(settings) + b"\n"
        process = subprocess.Popen([*EXECUTE, "1", "1"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(line)
        process.stdin.flush()
        said = process.stderr.read().decode()
        assert process.wait() == NODE_AWAY
    assert "the database system is starting up" in said
    assert "Traceback" not in said


def test_an_attempt_whose_process_could_not_reach_the_database_is_given_back(
    settings: Settings, engine: Engine
) -> None:
    ended: Any = SimpleNamespace(stdin=None, poll=lambda: NODE_AWAY)
    worker = Worker(settings, engine, world=World(start=lambda *_: ended))
    worker.turn()
    worker.turn()
    job = the_job(engine)
    assert (job.state, job.attempt, job.crashes, job.retries, job.error_code) == ("pending", 1, 0, 0, "")
    worker.turn()
    assert the_job(engine).attempt == 1, "it waits a little before it is tried again"


@pytest.mark.parametrize("at", ["find_job", "run", "_end_well"])
def test_a_database_that_goes_away_at_any_moment_is_no_failure_of_the_job(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    with engine.begin() as connection:
        claimed = claim(connection, "me", Room(1000, 4), Room(1000, 4), database_now(connection))
    assert claimed is not None

    def go_away(*_: object) -> None:
        raise OperationalError("select", {}, psycopg.OperationalError("server closed the connection unexpectedly"))

    monkeypatch.setattr(execute_module, "run", lambda *_: SimpleNamespace(dicom=()))
    monkeypatch.setattr(execute_module, at, go_away)
    with pytest.raises(OperationalError):
        execute(settings, engine, claimed[0])
    job = the_job(engine)
    assert (job.state, job.crashes, job.retries) == ("running", 0, 0), "its worker gives it back"


def test_a_mistake_in_a_statement_is_one_of_ours_on_either_database(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(Exception, match="nothing") as caught:
        connection.exec_driver_sql("select nothing from job")
    assert not is_away(caught.value)


def test_an_error_of_the_driver_itself_is_one_of_ours(tmp_path: Path) -> None:
    """What Python's module refuses carries no code of SQLite's."""
    database = open_database(f"sqlite:///{tmp_path}/node.sqlite")
    with database.connect() as connection:
        with pytest.raises(DBAPIError, match="type 'object' is not supported") as unbound:
            connection.exec_driver_sql("select ?", (object(),))
        connection.connection.dbapi_connection.close()  # type: ignore[union-attr]
        with pytest.raises(DBAPIError, match="closed database") as closed:
            connection.exec_driver_sql("select 1")
        assert [is_away(one.value) for one in (unbound, closed)] == [False, False]
        connection.invalidate()
    database.dispose()


def test_a_database_that_is_busy_is_away(tmp_path: Path) -> None:
    one, other = (sqlite3.connect(tmp_path / "busy", timeout=0, isolation_level=None) for _ in range(2))
    one.execute("begin immediate")
    with pytest.raises(sqlite3.OperationalError, match="locked") as caught:
        other.execute("begin immediate")
    assert is_away(OperationalError("begin", {}, caught.value))
    for connection in (one, other):
        connection.close()
