"""What lies beside a backup's own files is left out and named; what a backup says of itself is as it was saved."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from carina.cli.backup import restore
from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.keeping.backup import BACKUP_FILE, save_node
from carina.keeping.copied import COPIED
from carina.keeping.restore import restore_node
from kept_nodes import TODAY
from saved_nodes import make_earlier
from test_backup import filled


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    node = filled(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    (tmp_path / "node/runs/1/empty").mkdir()
    save_node(node, tmp_path / "saved", TODAY)
    return tmp_path / "saved"


def there(saved: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(saved.with_name("there"))))


def log_of_writes(database: Path, beside: Path) -> None:
    """SQLite's log with a transaction in it that empties the node."""
    copy = database.with_name("written")
    shutil.copy2(database, copy)
    with closing(sqlite3.connect(copy)) as writer:
        writer.execute("pragma journal_mode=wal")
        writer.execute("pragma foreign_keys=off")
        writer.execute("delete from instance")
        writer.commit()
        shutil.copy2(f"{copy}-wal", beside)
    copy.unlink()


def put_beside(saved: Path) -> list[str]:
    """All that may come to lie there; gives how it is named."""
    log_of_writes(saved / "node.sqlite", saved / "node.sqlite-wal")
    for name in ("node.sqlite-shm", "node.sqlite-journal", "carina.toml", "node.dump", "incoming/1/more.dcm"):
        (saved / name).write_bytes(b"not of this backup")
    shutil.copytree(saved / "runs/1", saved / "runs/77")
    (saved / "linked").symlink_to("/etc")
    (saved / "runs/8").symlink_to(saved / "runs/1")
    os.mkfifo(saved / "uploads-pipe")
    return sorted(
        [
            *(f"node.{kind}" for kind in ("sqlite-wal", "sqlite-shm", "sqlite-journal", "dump")),
            *("carina.toml", "incoming/1/more.dcm", "runs/77", "linked", "runs/8", "uploads-pipe"),
        ]
    )


def instances_in(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "node.sqlite")) as opened:
        return int(opened.execute("select count(*) from instance").fetchone()[0])


def test_what_was_not_saved_is_left_out_and_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = Path(shutil.copytree(saved, saved.with_name("plain"))), there(saved)
    named = put_beside(saved)
    monkeypatch.setattr("carina.cli.backup.node_settings", lambda _: made)
    done = CliRunner().invoke(restore, [str(saved)])
    assert done.exit_code == 0, done.output
    words = (
        "lies in the backup's folder and was not saved with it: left out. Put it in place by hand where it is wanted"
    )
    assert done.stderr == f"{saved}: {named[0]} and {len(named) - 1} more: {words}\n"
    assert instances_in(Path(made.node.folder)) == 4
    other = Settings(node=NodeSettings(folder=str(saved.with_name("other"))))
    assert restore_node(other, plain, TODAY).left_out == ()
    own = {"restored.json", "node.sqlite", "node.sqlite-wal", "node.sqlite-shm"}
    for folder in (made.node.folder, other.node.folder):
        came = {str(one.relative_to(folder)) for one in Path(folder).rglob("*")} - own
        saved_there = {str(one.relative_to(plain)) for one in plain.rglob("*")}
        assert came == saved_there - {BACKUP_FILE, COPIED, "node.sqlite"}
        assert "runs/1/empty" in came


def test_all_that_is_beside_has_its_name(saved: Path) -> None:
    named = put_beside(saved)
    assert restore_node(there(saved), saved, TODAY).left_out == tuple(named)


@pytest.mark.parametrize("with_list", [True, False])
def test_of_an_earlier_version_what_sqlite_would_apply_is_left_out(saved: Path, *, with_list: bool) -> None:
    make_earlier(saved, with_list=with_list)
    log_of_writes(saved / "node.sqlite", saved / "node.sqlite-wal")
    assert restore_node(there(saved), saved, TODAY).left_out == ("node.sqlite-wal",)
    assert instances_in(Path(there(saved).node.folder)) == 4


EDITS: Mapping[str, Mapping[str, Any]] = {
    "lost": {"lost": ["incoming/1/0.dcm"]},
    "files": {"files": 3},
    "version": {"database_version": "0099"},
    "no list": {"files_sha256": ""},
    "no digest": {"sha256": ""},
    "instances": {"instances": 7},
    "moment": {"at": "2020-01-01T00:00:00Z"},
    "folder": {"folder": "/elsewhere"},
}


def edited(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads((saved / BACKUP_FILE).read_bytes())
    change(said)
    (saved / BACKUP_FILE).write_text(json.dumps(said))


@pytest.mark.parametrize("edit", EDITS)
def test_a_backup_says_of_itself_what_was_saved(saved: Path, edit: str) -> None:
    edited(saved, lambda said: said.update(EDITS[edit]))
    words = f"^{saved}/{BACKUP_FILE}: (is not what was saved|has an empty .*); expected the"
    with pytest.raises(BadConfig, match=words):
        restore_node(there(saved), saved, TODAY)
    assert not Path(there(saved).node.folder).exists()


def test_one_that_is_laid_out_anew_is_the_same(saved: Path) -> None:
    edited(saved, lambda said: said)
    restore_node(there(saved), saved, TODAY)


@pytest.mark.parametrize(
    ("gone", "edit", "words"),
    [
        (["sha256"], {"database_version": "0099"}, "says that the database has version 0099; expected 00"),
        (["sha256", "files_sha256"], {}, "has no SHA-256 of the list of files; expected that of files.txt"),
    ],
)
def test_without_its_own_digest_a_backup_is_judged_by_what_it_lists(
    saved: Path, gone: list[str], edit: dict[str, Any], words: str
) -> None:
    edited(saved, lambda said: ([said.pop(name) for name in gone], said.update(edit)))
    with pytest.raises(BadConfig, match=f"^{saved}/{BACKUP_FILE}: {words}"):
        restore_node(there(saved), saved, TODAY)


@pytest.mark.parametrize("path", ["../elsewhere", "/etc/passwd", "runs/../../x"])
def test_a_list_names_nothing_outside(saved: Path, path: str) -> None:
    make_earlier(saved, with_list=True)
    with (saved / COPIED).open("a") as listed:
        listed.write(f"3 {path}\n")
    with pytest.raises(BadConfig, match=f"{COPIED}: names what lies outside the backup"):
        restore_node(there(saved), saved, TODAY)
