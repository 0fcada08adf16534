"""The database of a server in a backup: saved by ``pg_dump`` as of one snapshot, brought back by ``pg_restore``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar

from sqlalchemy import Connection, func, select, text

from carina.database import open_database
from carina.database.address import SECRET_WORDS, connection_words
from carina.errors import BadConfig, one_line

DUMP = "node.dump"
"""In the custom format of ``pg_dump``, without owners and rights: whoever restores it owns it."""

_WITHOUT_OWNERS = ("--no-owner", "--no-privileges")

_ANYTHING = """
WITH things (class, id, schema, name) AS (
  SELECT 'pg_class'::regclass, oid, relnamespace, relname FROM pg_class
  UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, proname FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace, typname FROM pg_type
)
SELECT nspname || '.' || name FROM things JOIN pg_namespace ON pg_namespace.oid = schema
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = class AND objid = id AND deptype = 'e')
ORDER BY class::text, name LIMIT 1
"""
"""Any table, sequence, view, function or type of a schema of people's; what an extension brought doesn't count."""

_SERVICE = "carina"

_LONGEST_SECRET = 900
"""Characters that older libraries of PostgreSQL's read of a line in a file of services."""

Read = TypeVar("Read")


def dump_database(address: str, to: Path, read: Callable[[Connection], Read]) -> Read:
    """Save a database to a file; gives what ``read`` finds in the same snapshot of it.

    Raises:
        BadConfig: ``pg_dump`` is not at hand, or fails.
    """
    program = _program("pg_dump", "saved")
    engine = open_database(address)
    try:
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            snapshot = connection.execute(select(func.pg_export_snapshot())).scalar_one()
            found = read(connection)
            words = [program, "--format=custom", *_WITHOUT_OWNERS, f"--snapshot={snapshot}", f"--file={to}"]
            _run(words, address)
            return found
    finally:
        engine.dispose()


def check_restorable(address: str) -> None:
    """See that a database can be filled from a dump.

    Raises:
        BadConfig: it is not empty; ``pg_restore`` is not at hand.
    """
    restoring_program()
    engine = open_database(address)
    try:
        with engine.connect() as connection:
            found = connection.execute(text(_ANYTHING)).scalar()
    finally:
        engine.dispose()
    if found:
        words = (
            f"it has something in it ({found}), and nothing is overwritten: make an empty one for the restored node."
        )
        raise BadConfig("restore.database", f"node.database: {words}")


def restore_database(dump: Path, address: str) -> None:
    """Fill an empty database from such a file, all of it or nothing.

    Raises:
        BadConfig: the database is not empty; ``pg_restore`` is not at hand, or fails.
    """
    check_restorable(address)
    program = restoring_program()
    _run([program, *_WITHOUT_OWNERS, "--single-transaction", "--exit-on-error", str(dump)], address)


def restoring_program() -> str:
    """Where ``pg_restore`` is.

    Raises:
        BadConfig: it is not at hand.
    """
    return _program("pg_restore", "brought back")


def _program(name: str, done: str) -> str:
    places = [*os.get_exec_path(), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    program = shutil.which(name, path=os.pathsep.join(places))
    if program is None:
        words = f"a server's database is {done} by {name}, which is not on this machine; install PostgreSQL's client"
        raise BadConfig("backup.no-program", f"node.database: {words} (Debian: postgresql-client).")
    return program


def _run(words: list[str], address: str) -> None:
    """Run a program of PostgreSQL's on a database, of whose secrets no list of processes shows any."""
    from psycopg.conninfo import make_conninfo

    options = connection_words(address)
    secrets = {name: options.pop(name) for name in sorted(SECRET_WORDS & options.keys())}
    password = secrets.pop("password", "")
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    with _service_file(secrets, options) as file:
        if file:
            environment["PGSERVICEFILE"], options["service"] = file, _SERVICE
        place = f"--dbname={make_conninfo('', **options)}"
        done = subprocess.run(
            [words[0], place, *words[1:]],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = one_line(done.stderr.strip())[:300] or f"exit code {done.returncode}"
        raise BadConfig("backup.database", f"node.database: {Path(words[0]).name} failed: {said}")


@contextmanager
def _service_file(secrets: Mapping[str, str], options: Collection[str]) -> Iterator[str]:
    """A file of our user's alone with what no variable of the environment can say, until the block ends; empty: none.

    Raises:
        BadConfig: a secret can't stand in such a file, or the address names one of its own.
    """
    for name, secret in secrets.items():
        if "service" in options:
            words = f"{name} and service are both given: write {name} into the file of that service"
            raise BadConfig("backup.secret", f"node.database: {words}.")
        if len(secret) > _LONGEST_SECRET or secret != secret.rstrip() or len(secret.splitlines()) > 1:
            words = f"{name} ends with a space, has a line break or over {_LONGEST_SECRET} characters"
            raise BadConfig("backup.secret", f"node.database: {words}: PostgreSQL's programs take no such one.")
    if not secrets:
        yield ""
        return
    with NamedTemporaryFile("w", prefix="carina-service-", encoding="utf-8") as file:
        file.writelines([f"[{_SERVICE}]\n", *(f"{name}={secret}\n" for name, secret in secrets.items())])
        file.flush()
        yield file.name
