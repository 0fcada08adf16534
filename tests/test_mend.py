"""``carina mend``: what can be read takes the damaged database's place once it is whole, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from shlex import split

import pytest
from click.testing import CliRunner

from carina.cli.mend import mend
from carina.cli.terminal import SOME_FAILED
from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.keeping import mend as mending
from carina.keeping.backup import save_node
from carina.keeping.mend import mend_backup, mend_node
from carina.keeping.mended_rows import LOST_JOBS
from carina.keeping.own_copy import damage_in
from carina.keeping.restore import restore_node
from carina.receive.recover import recover
from kept_nodes import TODAY
from mendable import Placed, Row, make_database, placed, with_pages
from saved_nodes import OF_DATABASES, PAGE
from test_backup import filled

NOW = datetime(2026, 12, 1, 3, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_database(tmp_path_factory.mktemp("mended") / "node")


@pytest.fixture
def node(tmp_path: Path, database: Path) -> Settings:
    """A node with its database, and what its folder says of it."""
    (tmp_path / "node").mkdir()
    for name in ("node.sqlite", "node.id"):
        (tmp_path / "node" / name).write_bytes((database.parent / name).read_bytes())
    return Settings(node=NodeSettings(folder=str(tmp_path / "node")))


def rows_in(file: Path, table: str) -> dict[int, Row]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return {row[0]: row[1:] for row in connection.execute(f"select rowid, * from {table}")}


def lacking(whole: dict[int, Row], kept: dict[int, Row]) -> list[int]:
    """The rows that are not there as they were."""
    return [number for number, row in whole.items() if kept.get(number) != row]


def pages_of(layout: Placed, table: str) -> list[int]:
    """The pages with rows of a table."""
    return sorted({page for (name, _), pages in layout.pages.items() if name == table for page in pages})


def damage(file: Path, *pages: int) -> bytes:
    """Write zeros into these pages; gives the whole file as it is then."""
    file.write_bytes(with_pages(file.read_bytes(), {number: bytes(PAGE) for number in pages}))
    return file.read_bytes()


def test_a_whole_database_is_left_alone(node: Settings) -> None:
    file = Path(node.node.folder) / "node.sqlite"
    before = file.read_bytes()
    assert mend_node(node, NOW, "me") is None
    assert file.read_bytes() == before and not file.with_name("damaged.sqlite").exists()


@pytest.mark.parametrize("kind", ["a leaf of", "a root of"])
@pytest.mark.parametrize("table", ["arrival", "instance", "job", "delivery", "audit", "account", "sqlite_master"])
def test_the_mended_database_is_whole_and_has_every_row_that_was(
    node: Settings, database: Path, kind: str, table: str
) -> None:
    """But for those that belong to a row that is lost: what a job says of its arrival makes that one again."""
    file, layout = Path(node.node.folder) / "node.sqlite", placed(database)
    leaves, inner = pages_of(layout, table), sorted(layout.inner[table])
    ends = leaves or inner
    pages = {ends[1], ends[-1]} if kind == "a leaf of" else {[*inner, *leaves][0]}
    damaged = damage(file, *pages)
    mended = mend_node(node, NOW, "me")
    assert mended is not None and file.with_name("damaged.sqlite").read_bytes() == damaged
    assert damage_in(file) == ""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("pragma foreign_key_check").fetchall() == []
    hidden = {"account", "session", "token", "member"} if pages == {1} else set()
    for one in mended.tables:
        missing = lacking(layout.whole(pages)[one.name], rows_in(file, one.name))
        assert one.name in hidden or len(missing) <= one.left_out, (one, missing[:5])
    *_, last = rows_in(file, "audit").values()
    assert last[2:] == ("me", "changed", "the node's database: mended, with the rows that could be read")


@pytest.mark.parametrize("harm", OF_DATABASES)
def test_what_a_restore_says_is_done_and_never_loses_the_damaged_file(tmp_path: Path, harm: str) -> None:
    """It is run as it stands: what can be read is put in place, or all is left as it was."""
    made = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    OF_DATABASES[harm](tmp_path / "node/node.sqlite")
    saved, there = tmp_path / "it's saved", Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    save_node(made, saved, TODAY)
    damaged = (saved / "node.sqlite").read_bytes()
    with pytest.raises(BadConfig, match=r"mend this one and restore it again: carina mend ") as caught:
        restore_node(there, saved, TODAY)
    verb, *arguments = split(caught.value.message.partition("restore it again: carina ")[2])
    assert verb == "mend"
    if harm in {"empty", "noise", "lines gone"}:  # not one page of it is left
        with pytest.raises(BadConfig, match="no row of a node's can be read in it, and nothing was changed"):
            CliRunner().invoke(mend, arguments, catch_exceptions=False)
        assert (saved / "node.sqlite").read_bytes() == damaged and not (saved / "damaged.sqlite").exists()
        return
    done = CliRunner().invoke(mend, arguments, catch_exceptions=False)
    assert done.exit_code in (0, SOME_FAILED), done.output
    assert (saved / "damaged.sqlite").read_bytes() == damaged
    said = restore_node(there, saved, TODAY)
    assert not (tmp_path / "there/damaged.sqlite").exists()
    if harm in {"page", "index"}:
        assert (said.instances, said.runs, said.lost, said.lost_results) == (4, 1, (), ())


def test_a_backup_that_was_damaged_after_it_was_saved_says_so_once_it_is_mended(tmp_path: Path) -> None:
    made = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    saved = tmp_path / "saved"
    save_node(made, saved, TODAY)
    OF_DATABASES["page"](saved / "node.sqlite")
    there = Settings(node=NodeSettings(folder=str(tmp_path / "there")))
    with pytest.raises(BadConfig, match="is not what was saved"):
        restore_node(there, saved, TODAY)
    assert mend_backup(saved, NOW, "me") is not None
    assert json.loads((saved / "backup.json").read_bytes())["database_damage"].startswith("it was damaged after")
    assert restore_node(there, saved, TODAY).instances == 4


@pytest.mark.parametrize("step", range(9))
def test_a_try_that_is_killed_at_any_step_leaves_a_database_and_is_finished_by_the_next(
    node: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    file, kept = Path(node.node.folder) / "node.sqlite", Path(node.node.folder) / "damaged.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("update audit set id = 0 where 0")
        connection.execute("insert into audit values (9000, '2026-06-01 12:00:00.000000', 'me', 'sent', 'x')")
        connection.commit()
        log, whole = file.with_name("node.sqlite-wal").read_bytes(), file.read_bytes()
    file.write_bytes(whole)
    damaged = damage(file, 2)
    file.with_name("node.sqlite-wal").write_bytes(log)
    done = [0]

    class Killed(BaseException):
        pass

    def counted(patched: pytest.MonkeyPatch, kind: object, name: str) -> None:
        real = getattr(kind, name)

        def stepped(*arguments: object, **named: object) -> object:
            if done[0] == step:
                raise Killed
            done[0] += 1
            return real(*arguments, **named)

        patched.setattr(kind, name, stepped)

    with monkeypatch.context() as patched:
        for kind, name in ((mending, "_flush"), (mending, "_keep"), (Path, "rename"), (Path, "replace")):
            counted(patched, kind, name)
        with suppress(Killed):
            mend_node(node, NOW, "me")
    assert file.exists()
    mend_node(node, NOW, "me")
    assert damage_in(file) == "" and kept.read_bytes() == damaged
    assert 9000 in rows_in(file, "audit") and not file.with_name("node.sqlite-wal").exists()
    assert kept.with_name("damaged.sqlite-wal").read_bytes() == log
    assert sorted(one.name for one in file.parent.glob("*.part*")) == []


def test_on_a_file_system_without_links_the_damaged_one_is_copied(
    node: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    file = Path(node.node.folder) / "node.sqlite"
    damaged = damage(file, 2)
    monkeypatch.setattr(os, "link", refuse)
    assert mend_node(node, NOW, "me") is not None
    assert file.with_name("damaged.sqlite").read_bytes() == damaged and damage_in(file) == ""


def test_an_earlier_damaged_one_is_never_overwritten(node: Settings) -> None:
    file = Path(node.node.folder) / "node.sqlite"
    damaged = damage(file, 2)
    file.with_name("damaged.sqlite").write_bytes(b"of before")
    with pytest.raises(BadConfig, match="is there already, of an earlier damage, and nothing is overwritten"):
        mend_node(node, NOW, "me")
    assert file.read_bytes() == damaged and file.with_name("damaged.sqlite").read_bytes() == b"of before"


USES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("pragma journal_mode")
connection.execute("begin")
connection.execute("select count(*) from sqlite_master").fetchone()
print("uses it", flush=True)
sys.stdin.read()
"""
SERVES = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1].replace("node.sqlite", "node.lock")):
    print("uses it", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("program", "words"), [(USES, "a worker or a command uses it"), (SERVES, "the node runs")])
def test_nothing_is_mended_while_anything_runs_on_the_node(node: Settings, program: str, words: str) -> None:
    file = Path(node.node.folder) / "node.sqlite"
    damaged = damage(file, 2)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"uses it\n"
        with pytest.raises(BadConfig, match=words):
            mend_node(node, NOW, "me")
        assert file.read_bytes() == damaged
        other.communicate(b"")


def test_the_command_counts_what_was_found_and_what_is_known_to_be_missing(
    node: Settings, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = placed(database)
    leaves = pages_of(layout, "instance")
    damage(Path(node.node.folder) / "node.sqlite", leaves[3])
    lost = 500 - len(layout.whole({leaves[3]})["instance"])
    monkeypatch.setattr("carina.cli.mend.node_settings", lambda _: node)
    done = CliRunner().invoke(mend, [])
    assert done.exit_code == SOME_FAILED, done.output
    assert f"instance: rows found: {500 - lost}; known to be missing: {lost}\n" in done.stderr
    assert "arrival: rows found: 90\n" in done.stdout
    again = CliRunner().invoke(mend, [])
    assert (again.exit_code, again.stdout) == (0, "the database is whole: nothing to mend\n")


def test_no_database_is_made_of_noise_that_is_not_whole(node: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(node.node.folder) / "node.sqlite"
    damaged = damage(file, 2)
    monkeypatch.setattr("carina.keeping.mended_rows._wrong_in", lambda _: iter(["row 7 missing from index ix"]))
    with pytest.raises(BadConfig, match=r"makes no whole database \(row 7 missing from index ix\)"):
        mend_node(node, NOW, "me")
    assert file.read_bytes() == damaged and not file.with_name("damaged.sqlite").exists()
    file.write_bytes(Random(1).randbytes(90 * PAGE))
    with pytest.raises(BadConfig, match="no row of a node's can be read in it, and nothing was changed"):
        mend_node(node, NOW, "me")


@pytest.mark.parametrize("table", ["instance", "arrival"])
def test_files_that_lost_their_rows_are_set_aside_when_the_node_starts(tmp_path: Path, table: str) -> None:
    """Also those of a series that was coming in, which would else be the rest of a crash and be removed."""
    made = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    file = tmp_path / "node/node.sqlite"
    damage(file, *pages_of(placed(file), table))
    assert mend_node(made, NOW, "me") is not None
    engine = open_node(made)
    assert recover(made, engine) == 0
    engine.dispose()
    kept = {one.relative_to(tmp_path / "node").as_posix() for one in (tmp_path / "node").rglob("*.dcm")}
    assert {"unknown/2/0.dcm", "unknown/2/1.dcm", "incoming/1/0.dcm", "incoming/1/1.dcm"} < kept
    assert list(rows_in(file, "arrival")) == ([1, 2] if table == "instance" else [1])  # as its jobs have it
    assert len(rows_in(file, "instance")) == (0 if table == "instance" else 2)


def test_a_series_that_lost_its_jobs_waits_in_quarantine(tmp_path: Path) -> None:
    made = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    file = tmp_path / "node/node.sqlite"
    damage(file, *pages_of(placed(file), "job"))
    assert mend_node(made, NOW, "me") is not None
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("select id, state, reason from arrival order by id").fetchall()
    assert found == [(1, "quarantined", LOST_JOBS), (2, "arriving", "")]
