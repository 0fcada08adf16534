"""A node on PostgreSQL saved and brought back, by a real server and its own programs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import ProgrammingError

from carina.config import NodeSettings, Settings
from carina.database import ARRIVAL, AUDIT, DELIVERY, JOB, open_database, read_only
from carina.database.address import SECRET_WORDS
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.keeping import dumps
from carina.keeping.backup import save_node
from carina.keeping.copied import Copier
from carina.keeping.restore import restore_node
from databases import new_database
from kept_nodes import TODAY, dangling
from saved_nodes import make_earlier
from test_backup import alter, filled

NUMBERS = count(1)


def settings_on(server: str, folder: Path) -> Settings:
    """Settings of a node on an empty database."""
    database = new_database(server, f"backup {next(NUMBERS)}")
    return Settings(node=NodeSettings(folder=str(folder), database=database))


@pytest.fixture
def node(postgresql: str, tmp_path: Path) -> Settings:
    return filled(settings_on(postgresql, tmp_path / "node"))


def test_it_goes_on_where_the_backup_was_made(node: Settings, postgresql: str, tmp_path: Path) -> None:
    made = save_node(node, tmp_path / "saved", TODAY)
    assert (made.instances, made.runs) == (4, 1)
    there = settings_on(postgresql, tmp_path / "there")
    assert restore_node(there, tmp_path / "saved", TODAY) == made
    engine = open_node(there)
    assert not dangling(engine, tmp_path / "there")
    with engine.begin() as connection:
        jobs = connection.execute(select(JOB).order_by(JOB.c.id)).all()
        asked = connection.execute(select(DELIVERY.c.state, DELIVERY.c.ask).order_by(DELIVERY.c.id)).all()
        trail = connection.execute(select(AUDIT.c.who, AUDIT.c.action)).all()
        now = {"first_at": TODAY, "last_at": TODAY}
        new = {"series_uid": "3", "study_uid": "1", "source": "s", "sender": "", "state": "arriving", **now}
        added = connection.execute(insert(ARRIVAL).values(**new)).inserted_primary_key
    assert added is not None and added[0] > 2, "ids are counted on"
    assert [(job.state, job.worker) for job in jobs] == [("stopped", "HOST:1"), ("pending", ""), ("pending", "HOST:1")]
    assert {job.source for job in jobs} == {"incoming/1"}
    assert list(map(tuple, asked)) == [("confirmed", 0), ("waiting", 1)]
    assert list(map(tuple, trail)) == [("backup", "copied"), ("restore", "changed")]
    engine.dispose()


def test_the_dump_stays_in_the_backup(node: Settings, postgresql: str, tmp_path: Path) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    restore_node(settings_on(postgresql, tmp_path / "there"), tmp_path / "saved", TODAY)
    there, saved = ({one.name for one in (tmp_path / name).iterdir()} for name in ("there", "saved"))
    assert saved - there == {"node.dump", "instances.txt", "files.txt", "backup.json"}
    assert [one.name for one in (tmp_path / "there" / "runs").iterdir()] == ["1"]


def test_what_comes_while_it_is_saved_is_in_neither_or_both(
    node: Settings, postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are committed between the look at the files and the dump are not in the dump."""
    run = dumps._run

    def late(*given: Any) -> None:
        engine = open_database(node.node.database)
        with engine.begin() as connection:
            connection.execute(update(JOB).where(JOB.c.id == 2).values(state="stopped"))
        engine.dispose()
        run(*given)

    monkeypatch.setattr(dumps, "_run", late)
    assert save_node(node, tmp_path / "saved", TODAY).runs == 1
    monkeypatch.undo()
    there = settings_on(postgresql, tmp_path / "there")
    restore_node(there, tmp_path / "saved", TODAY)
    engine = open_database(there.node.database)
    with read_only(engine) as connection:
        states = connection.execute(select(JOB.c.state).order_by(JOB.c.id)).scalars().all()
    assert list(states) == ["stopped", "pending", "pending"]
    engine.dispose()


def test_what_stands_in_the_way_is_one_line_and_nothing_is_touched(
    node: Settings, postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    on_sqlite = Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    full = Settings(node=NodeSettings(folder=str(tmp_path / "there"), database=node.node.database))
    empty = settings_on(postgresql, tmp_path / "there")
    with pytest.raises(BadConfig, match="of a node on PostgreSQL: name an empty database of a server"):
        restore_node(on_sqlite, tmp_path / "saved", TODAY)
    with pytest.raises(BadConfig, match=r"it has something in it \(.*\), and nothing is overwritten: make an empty"):
        restore_node(full, tmp_path / "saved", TODAY)
    whole = (tmp_path / "saved" / "node.dump").read_bytes()
    (tmp_path / "saved" / "node.dump").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadConfig, match=r"node\.dump: is missing, or not as long as it was; expected") as caught:
        restore_node(empty, tmp_path / "saved", TODAY)
    assert len(caught.value.message.splitlines()) == 1
    (tmp_path / "saved" / "node.dump").write_bytes(whole)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(BadConfig, match="saved by pg_dump, which is not on this machine"):
        save_node(node, tmp_path / "other", TODAY)
    monkeypatch.undo()
    for name in ("incoming/1/0.dcm", "instances.txt", "node.dump"):
        (tmp_path / "saved" / name).rename(tmp_path / "moved")
        with pytest.raises(BadConfig, match=rf"{name}( and .*)?: is missing"):
            restore_node(empty, tmp_path / "saved", TODAY)
        (tmp_path / "moved").rename(tmp_path / "saved" / name)
    assert not (tmp_path / "there").exists() and not (tmp_path / "other").exists()
    restore_node(empty, tmp_path / "saved", TODAY)


def test_an_altered_instance_is_refused_before_the_database_is_filled(
    node: Settings, postgresql: str, tmp_path: Path
) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    there = settings_on(postgresql, tmp_path / "there")
    file = tmp_path / "saved" / "incoming" / "1" / "1.dcm"
    whole = file.read_bytes()
    alter(file)
    with pytest.raises(BadConfig, match=r"incoming/1/1\.dcm: is not what was saved; expected the SHA-256"):
        restore_node(there, tmp_path / "saved", TODAY)
    file.write_bytes(whole)
    listed = tmp_path / "saved" / "instances.txt"
    lines = listed.read_text().splitlines()
    make_earlier(tmp_path / "saved", with_list=False)
    listed.write_text("".join(f"{line.split()[-1]}\n" for line in lines))  # as earlier versions wrote it
    assert len(lines[0].split()) == 3 and restore_node(there, tmp_path / "saved", TODAY).instances == 4


SPY = """#!{python}
import json, os, pathlib, sys
file = os.environ.get("PGSERVICEFILE", "")
seen = {{
    "words": pathlib.Path("/proc/self/cmdline").read_text().split(chr(0)),
    "password": os.environ.get("PGPASSWORD", ""),
    "service": pathlib.Path(file).read_text() if file else "",
    "rights": os.stat(file).st_mode & 0o777 if file else 0,
    "file": file,
}}
with open({log!r}, "a") as log:
    print(json.dumps(seen), file=log)
real = {real!r}
if real:
    os.execv(real, [real, *sys.argv[1:]])
"""
"""A program that writes down what is seen of it, and then is the real one, where there is one."""


def spied(folder: Path, monkeypatch: pytest.MonkeyPatch, names: Sequence[str], *, is_real: bool) -> Path:
    """Put spies before PostgreSQL's programs; gives the file that they write to."""
    log = folder / "seen.jsonl"
    for name in names:
        real = dumps._program(name, "") if is_real else ""
        (folder / name).write_text(SPY.format(python=sys.executable, log=str(log), real=real))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return log


def seen_in(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


SECRETS = {name: f"a secret, # of {name}=!'" for name in sorted(SECRET_WORDS)}


@pytest.mark.parametrize("names", [(), *((name,) for name in SECRETS), tuple(SECRETS)])
def test_no_secret_of_an_address_is_in_a_list_of_processes_or_left_in_a_file(
    names: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = spied(tmp_path, monkeypatch, ["pg_dump"], is_real=False)
    behind = "".join(f"&{name}={quote(SECRETS[name])}" for name in names)
    dumps._run(["pg_dump", "--file=x"], f"postgresql+psycopg://carina@db:5433/node?sslmode=require{behind}")
    (seen,) = seen_in(log)
    assert not any(secret in word for word in seen["words"] for secret in ("a secret", *SECRETS))
    assert {"user=carina", "port=5433", "sslmode=require"} <= set(seen["words"][2].split())
    given = {"password": seen["password"]} if seen["password"] else {}
    given |= dict(line.split("=", 1) for line in seen["service"].splitlines()[1:])
    assert given == {name: SECRETS[name] for name in names}
    assert not seen["file"] or (seen["rights"], Path(seen["file"]).exists()) == (0o600, False)


def test_a_password_before_the_host_is_in_no_list_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = spied(tmp_path, monkeypatch, ["pg_dump"], is_real=False)
    dumps._run(["pg_dump", "--file=x"], "postgresql+psycopg://carina:secret%21@db:5433/node?sslmode=require")
    (seen,) = seen_in(log)
    assert seen["words"][2] == "--dbname=host=db dbname=node user=carina port=5433 sslmode=require"
    assert (seen["password"], seen["service"]) == ("secret!", "")


@pytest.mark.parametrize(
    ("behind", "words"),
    [
        ("sslpassword=secret&service=mine", "sslpassword and service are both given: write sslpassword into the file"),
        ("sslpassword=secret%0Anext", "sslpassword ends with a space, has a line break or over 900 characters"),
        ("sslpassword=secret%20", "sslpassword ends with a space"),
        (f"sslpassword={'secret' * 151}", "sslpassword ends with a space, has a line break or over 900 characters"),
    ],
)
def test_a_secret_that_can_not_be_handed_over_in_private_is_one_line_without_it(
    behind: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = spied(tmp_path, monkeypatch, ["pg_dump"], is_real=False)
    with pytest.raises(BadConfig, match=f"^node.database: {words}") as caught:
        dumps._run(["pg_dump"], f"postgresql+psycopg://carina@db/node?{behind}")
    assert "secret" not in caught.value.message and not log.exists()


def with_secret(settings: Settings) -> Settings:
    address = settings.node.database
    longer = f"{address}{'&' if '?' in address else '?'}sslpassword=s3"
    return replace(settings, node=replace(settings.node, database=longer))


def test_a_node_is_saved_and_brought_back_by_an_address_with_secrets(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = spied(tmp_path, monkeypatch, ["pg_dump", "pg_restore"], is_real=True)
    first, second = (settings_on(postgresql, tmp_path / name) for name in ("node", "there"))
    node, there = (with_secret(one) for one in (filled(first), second))
    save_node(node, tmp_path / "saved", TODAY)
    restore_node(there, tmp_path / "saved", TODAY)
    seen = [one for one in seen_in(log) if one["words"][2].startswith("--dbname=")]  # the others ask no server
    assert len(seen) >= 2 and all("sslpassword=s3" in one["service"] for one in seen)
    assert not any("s3" in word for one in seen for word in one["words"])


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        ("CREATE TABLE mine (id int)", "public.mine"),
        ("CREATE SCHEMA other; CREATE TABLE other.mine (id int)", "other.mine"),
        ("CREATE VIEW seen AS SELECT 1 AS one", "public.seen"),
        ("CREATE SEQUENCE numbers", "public.numbers"),
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "public.one"),
        ("CREATE TYPE colour AS ENUM ('red')", "public."),
        ("CREATE SCHEMA nothing", ""),
        ("CREATE EXTENSION plpgsql SCHEMA pg_catalog", ""),
    ],
)
def test_a_database_with_anything_in_it_is_refused_before_a_file_is_copied(
    node: Settings, postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str, seen: str
) -> None:
    save_node(node, tmp_path / "saved", TODAY)
    there = settings_on(postgresql, tmp_path / "there")
    engine = open_database(there.node.database)
    with engine.begin() as connection, suppress(ProgrammingError):  # the last is there by itself
        connection.execute(text(made))
    engine.dispose()
    copied: list[str] = []
    monkeypatch.setattr(Copier, "tree", lambda *given: copied.append("a folder"))
    monkeypatch.setattr("carina.keeping.restore.check_copies", lambda saved, *_: saved.said)
    with pytest.raises(BadConfig) if seen else nullcontext() as caught:
        restore_node(there, tmp_path / "saved", TODAY)
    assert bool(copied) is not bool(seen)
    assert not seen or (caught is not None and f"it has something in it ({seen}" in caught.value.message)
