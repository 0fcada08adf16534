"""SQLite that a disk has damaged: whoever opens or asks it is told so in one line, and of no fault of Carina's."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from called import called
from carina.cli.terminal import SOME_FAILED
from carina.config import NodeSettings, Settings
from carina.database import SCHEMA, Outages
from carina.errors import BadConfig, Bug, CarinaError, told
from carina.jobs.places import open_existing_node, open_node
from carina.service.check_database import database_mistakes
from carina.service.health import readiness
from carina.service.serve import node_of
from saved_nodes import PAGE
from test_backup import filled

BAD_CONFIG = 4
TABLES = (*SCHEMA.tables, "alembic_version")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "node"
    filled(Settings(node=NodeSettings(folder=str(folder))))
    with closing(sqlite3.connect(folder / "node.sqlite")) as plain:
        plain.execute("pragma wal_checkpoint(truncate)")
    return folder


@pytest.fixture
def node(whole: Path, tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(shutil.copytree(whole, tmp_path / "node"))))


def file_of_node(node: Settings) -> Path:
    return Path(node.node.folder) / "node.sqlite"


def hit(file: Path, table: str, content: bytes) -> None:
    """Put something else into the first page of a table."""
    with closing(sqlite3.connect(file)) as plain:
        page = plain.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()[0]
    with file.open("r+b") as stream:
        stream.seek((page - 1) * PAGE)
        stream.write(content)


def met(node: Settings) -> Iterator[CarinaError]:
    """What is told to whoever opens a node, in each way there is, and reads each of its tables."""
    for opens in (open_existing_node, open_node):
        try:
            engine = opens(node)
        except Exception as error:  # noqa: BLE001 - as the command line does
            yield told(error)
            continue
        for table in SCHEMA.tables.values():
            try:
                with engine.connect() as connection:
                    connection.execute(select(table)).all()
            except Exception as error:  # noqa: BLE001 - as the command line does
                yield told(error)
        engine.dispose()


def check_said(node: Settings, errors: list[CarinaError]) -> None:
    assert errors
    for error in errors:
        assert not isinstance(error, Bug), error.trace
        assert len(error.message.splitlines()) == 1
        assert str(file_of_node(node)) in error.message or node.node.folder in error.message
        assert "SELECT" not in error.message.upper().replace("SELECTED", "")


@pytest.mark.parametrize("content", [bytes(PAGE), Random(3).randbytes(PAGE)], ids=["zeros", "noise"])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_hit_is_told_in_one_line(node: Settings, table: str, content: bytes) -> None:
    hit(file_of_node(node), table, content)
    found = list(met(node))
    check_said(node, found)
    assert {error.code for error in found} == {"node.database-damaged"}
    with pytest.raises(DatabaseError) as caught:  # at its start, and not when somebody asks for that table
        open_node(node)
    assert told(caught.value).code == "node.database-damaged"
    (mistake,) = database_mistakes(node)
    assert "the node's database is damaged (" in mistake.words and "restore an earlier backup" in mistake.words


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_hit_while_the_node_runs_is_told_by_health_and_never_over(node: Settings, table: str) -> None:
    running = node_of(node)
    assert not [one for one in readiness(running).troubles if one.startswith("database")]
    hit(file_of_node(node), table, Random(3).randbytes(PAGE))
    running.engine.dispose()
    (trouble,) = [one for one in readiness(running).troubles if one.startswith("database")]
    assert "malformed" in trouble or "not a database" in trouble
    running.engine.dispose()


def test_damage_that_was_met_lasts_while_the_process_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages("web", tmp_path, lambda: 0.0)
    outages.tell(BadConfig("node.database-damaged", "it is damaged."))
    assert not outages.is_over()
    outages.tell(BadConfig("node.database-away", "it is away."))
    assert not outages.is_over()
    assert outages.lasting == "web: it is damaged."
    assert "works again" not in caplog.text


def without_schema(file: Path) -> None:
    """Its head is as it was, and no table is named in it."""
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\x0d" + bytes(PAGE - 101) + content[PAGE:])


def noise_for_schema(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:100] + Random(5).randbytes(PAGE - 100) + content[PAGE:])


OF_FILES: Mapping[str, Callable[[Path], object]] = {
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2 // PAGE * PAGE]),
    "noise": lambda file: file.write_bytes(Random(4).randbytes(10 * PAGE)),
    "empty": lambda file: file.write_bytes(b""),
    "no schema": without_schema,
    "noise for the schema": noise_for_schema,
}


@pytest.mark.parametrize("damage", OF_FILES)
def test_a_file_that_is_hit_is_told_in_one_line(node: Settings, damage: str) -> None:
    OF_FILES[damage](file_of_node(node))
    check_said(node, list(met(node)))
    assert list(database_mistakes(node))


KINDS = ("job", "audit", "delivery", "instance", *OF_FILES)


def damaged(node: Settings, damage: str, config: Path) -> None:
    config.write_text(f'[node]\nfolder = "{node.node.folder}"\n')
    if damage in OF_FILES:
        OF_FILES[damage](file_of_node(node))
    else:
        hit(file_of_node(node), damage, Random(3).randbytes(PAGE))


@pytest.mark.parametrize("damage", KINDS)
def test_commands_say_it_in_one_line(node: Settings, tmp_path: Path, damage: str) -> None:
    """All of a file that is hit, of a table those that read it; a worker would begin a job then."""
    damaged(node, damage, tmp_path / "carina.toml")
    looks = [[each, "list"] for each in ("jobs", "arrivals", "deliveries")] + [["jobs", "show", "1"]]
    works = [["worker", "--until-empty"]] if damage in OF_FILES else []
    for words in looks + works:
        done = called(*words, "--config", str(tmp_path / "carina.toml"), folder=tmp_path)
        assert done.returncode == BAD_CONFIG or (done.returncode == 0 and damage not in OF_FILES), done.stderr
        assert "fault of Carina" not in done.stderr and "SELECT" not in done.stderr
        if done.returncode:
            (line,) = done.stderr.splitlines()
            assert str(file_of_node(node)) in line and " restore a" in line


@pytest.mark.parametrize("damage", KINDS)
def test_a_backup_is_made_and_says_it_in_one_line(node: Settings, tmp_path: Path, damage: str) -> None:
    """Whatever was looked into, SQLite leaves no file of its own beside the copy."""
    damaged(node, damage, tmp_path / "carina.toml")
    done = called("backup", str(tmp_path / "saved"), "--config", str(tmp_path / "carina.toml"), folder=tmp_path)
    assert done.returncode == SOME_FAILED, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{file_of_node(node)}: is damaged (") and "restore an earlier backup" in line
    assert [one.name for one in (tmp_path / "saved").glob("node.sqlite*")] == ["node.sqlite"]
    assert "node.sqlite-" not in (tmp_path / "saved/files.txt").read_text()
