"""A node on PostgreSQL saved and brought back, by a real server and its own programs."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import ProgrammingError

from carina.config import NodeSettings, Settings
from carina.database import ARRIVAL, AUDIT, DELIVERY, JOB, open_database, read_only
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.keeping import dumps
from carina.keeping.backup import Copier, NamedFile, save_node
from carina.keeping.restore import restore_node
from databases import new_database
from kept_nodes import TODAY, dangling
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
    with pytest.raises(BadConfig, match=r"node\.database: pg_restore failed: ") as caught:
        restore_node(empty, tmp_path / "saved", TODAY)
    assert len(caught.value.message.splitlines()) == 1
    (tmp_path / "saved" / "node.dump").write_bytes(whole)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(BadConfig, match="saved by pg_dump, which is not on this machine"):
        save_node(node, tmp_path / "other", TODAY)
    monkeypatch.undo()
    for name in ("incoming/1/0.dcm", "instances.txt", "node.dump"):
        (tmp_path / "saved" / name).rename(tmp_path / "moved")
        with pytest.raises(BadConfig, match=f"{name} (and .* )?is missing"):
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
    with pytest.raises(BadConfig, match=r"incoming/1/1\.dcm: is not what the node received \(SHA-256"):
        restore_node(there, tmp_path / "saved", TODAY)
    file.write_bytes(whole)
    listed = tmp_path / "saved" / "instances.txt"
    lines = listed.read_text().splitlines()
    listed.write_text("".join(f"{line.split()[-1]}\n" for line in lines))  # as earlier versions wrote it
    assert len(lines[0].split()) == 3 and restore_node(there, tmp_path / "saved", TODAY).instances == 4


QUERIED = "carina@db:5433/node?sslmode=require&password=secret!"


def test_a_password_is_in_no_list_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], str]] = []

    class Done:
        returncode = 0

    def run(words: list[str], *, env: dict[str, str], **_: Any) -> Done:
        seen.append((words, env["PGPASSWORD"]))
        return Done()

    monkeypatch.setattr("subprocess.run", run)
    start = "postgresql+psycopg://"
    for address in (f"{start}carina:secret%21@db:5433/node?sslmode=require", f"{start}{QUERIED}"):
        dumps._run(["pg_dump", "--file=x"], address)
    place = "--dbname=host=db dbname=node user=carina port=5433 sslmode=require"
    assert seen == [(["pg_dump", place, "--file=x"], "secret!")] * 2


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
    monkeypatch.setattr(NamedFile, "is_whole", lambda *_: True)
    with pytest.raises(BadConfig) if seen else nullcontext() as caught:
        restore_node(there, tmp_path / "saved", TODAY)
    assert bool(copied) is not bool(seen)
    assert not seen or (caught is not None and f"it has something in it ({seen}" in caught.value.message)
