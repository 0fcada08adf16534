"""The rows in a dump of a server's database, read without a server: so that it is judged before it is brought back."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Integer, create_engine, text
from sqlalchemy.pool import StaticPool

from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, REMOVAL, SCHEMA
from carina.errors import one_line
from carina.keeping.dumps import restoring_program

_READ = frozenset({*(one.name for one in (ARRIVAL, DELIVERY, INSTANCE, JOB, REMOVAL)), "alembic_version"})

_COPY = re.compile(rb"COPY (?:[^ ]+\.)?(?P<table>\w+) \((?P<columns>[^)]*)\) FROM stdin;\n")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_AT_ONCE = 10_000


@contextmanager
def opened_dump(dump: Path) -> Iterator[Connection]:
    """The rows of a dump that say which files there are, in a database of SQLite's in memory, until the block ends.

    Raises:
        BadConfig: ``pg_restore`` is not at hand.
        ValueError: it can't read the dump to its end; with its own words.
    """
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.connect() as connection:
            _fill(connection, dump)
            yield connection
    finally:
        engine.dispose()


def _fill(connection: Connection, dump: Path) -> None:
    with tempfile.TemporaryFile() as said:
        words = [restoring_program(), "--file=-", str(dump)]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout is not None
            for line in process.stdout:
                found = _COPY.fullmatch(line)
                if found and found["table"].decode() in _READ:
                    _take(connection, found["table"].decode(), found["columns"].decode(), process.stdout)
        if process.returncode:
            said.seek(0)
            reason = one_line(said.read(1000).decode(errors="replace")).strip()
            raise ValueError(reason or f"exit code {process.returncode}")


def _take(connection: Connection, table: str, columns: str, stream: IO[bytes]) -> None:
    names = [one.strip().strip('"') for one in columns.split(",")]
    made = ", ".join(f'"{name}" {_kind(table, name)}' for name in names)
    connection.execute(text(f'CREATE TABLE IF NOT EXISTS "{table}" ({made})'))
    marks = ", ".join(f":c{number}" for number in range(len(names)))
    lines = iter(stream.readline, b"\\.\n")
    while rows := [_row(line) for line in islice(lines, _AT_ONCE) if line]:
        connection.execute(text(f'INSERT INTO "{table}" VALUES ({marks})'), rows)


def _kind(table: str, name: str) -> str:
    known = SCHEMA.tables.get(table)
    is_number = known is not None and name in known.columns and isinstance(known.columns[name].type, Integer)
    return "INTEGER" if is_number else "TEXT"


def _row(line: bytes) -> dict[str, str | None]:
    return {f"c{number}": _value(one) for number, one in enumerate(line.rstrip(b"\n").split(b"\t"))}


def _value(field: bytes) -> str | None:
    if field == b"\\N":
        return None
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), field).decode(errors="replace")
