"""Databases for tests of the node: SQLite in a file, and a PostgreSQL server of our own for the session."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine, text, update

from carina.database import IDENTITY, database_now, open_database, upgrade_schema
from carina.jobs.queue import NewJob, submit
from carina.testing.ports import free_port


def _program(name: str) -> str:
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), *os.environ.get("PATH", "").split(os.pathsep)]
    found = shutil.which(name, path=os.pathsep.join(map(str, places)))
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install postgresql")
    return found


def _user() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A server on a free port of loopback; gives the address of a database without its name."""
    initdb, server, user = _program("initdb"), _program("postgres"), _user()
    folder = Path(mkdtemp(prefix="carina-pg-"))
    if user:
        shutil.chown(folder, user)
    port = free_port()
    making: list[str | Path] = [initdb, "-D", folder / "data", "-U", "carina", "-A", "trust", "-N"]
    subprocess.run(making, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    serving: list[str | Path] = [server, "-D", folder / "data", "-p", str(port), "-k", folder, "-h", "127.0.0.1"]
    serving += ["-c", "timezone=America/New_York"]  # a server gives times in a zone of its own
    serving += ["-c", "fsync=off"]  # processes are killed here, and no machine
    process = subprocess.Popen(serving, user=user, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        _wait(port, process)
        yield f"postgresql+psycopg://carina@127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the server takes connections; it ends by itself where it can't start."""
    while process.poll() is None:
        try:
            psycopg.connect(f"postgresql://carina@127.0.0.1:{port}/postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)  # not yet
            continue
        return
    raise RuntimeError("the PostgreSQL server did not start")


def new_database(server: str, name: str, like: str = "template1") -> str:
    """Make a database on a server, with what another one holds; gives its address."""
    making = f'create database "{name}" template "{like}"'
    engine = open_database(server + "postgres")
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(making))
    engine.dispose()
    return server + name


def new_node_database(server: str, name: str) -> str:
    """Make a database with the tables of a node; the first on a server is migrated, the others are copies of it."""
    if server not in _MIGRATED:
        first = open_database(new_database(server, "migrated"))
        upgrade_schema(first)
        first.dispose()
        _MIGRATED.add(server)
    address = new_database(server, name, like="migrated")
    engine = open_database(address)
    with engine.begin() as connection:
        connection.execute(update(IDENTITY).values(uuid=uuid4().hex))
    engine.dispose()
    return address


_MIGRATED: set[str] = set()


@contextmanager
def database_of_one_job(folder: Path) -> Iterator[Engine]:
    """A database in a folder in which one small job waits."""
    made = open_database(f"sqlite:///{folder}/n.sqlite")
    upgrade_schema(made)
    with made.begin() as connection:
        submit(connection, NewJob(source="x", pipeline="p", memory_mb=1, cores=1), database_now(connection))
    yield made
    made.dispose()
