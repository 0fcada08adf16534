"""The check of a node's settings looks into its database as well, as the node does when it starts."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.jobs import places
from carina.jobs.places import DATABASE, open_node
from carina.keeping.backup import node_to_save
from carina.service.check_database import database_mistakes, database_remarks


def said(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda _: None, ""),
    "no database yet": (lambda file: file.unlink(), ""),
    "of an earlier version": (lambda file: said(file, "update alembic_version set version_num = '0020'"), ""),
    "no database": (
        lambda file: file.write_bytes(b"no database" * 100),
        r"the node's database is damaged \(file is not a database\): .* restore an earlier backup",
    ),
    "of a later version": (
        lambda file: said(file, "update alembic_version set version_num = '9999'"),
        "has version 9999, this program knows up to .*: use the Carina that made it, or a later one",
    ),
    "another's": (
        lambda file: said(file, "update identity set uuid = 'another'"),
        "was kept with another database than .* or restore a backup",
    ),
    "a table is gone": (
        lambda file: said(file, "alter table delivery rename to lost"),
        r"the node's database is damaged \(no such table: delivery\): .* restore an earlier backup",
    ),
}


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    settings = Settings(node=NodeSettings(folder=str(tmp_path / "node")))
    open_node(settings).dispose()
    return settings


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_stands_against_a_start_is_a_mistake(node: Settings, damage: str) -> None:
    harm, words = DAMAGE[damage]
    harm(Path(node.node.folder) / DATABASE)
    found = list(database_mistakes(node))
    assert [one.key for one in found] == [("node", "folder")] * bool(words)
    for one in found:
        assert re.search(words, one.words), one.words
    assert found or not list(database_remarks(node))


def test_of_another_users_it_is_said_that_nobody_looked(node: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "owner_of", lambda _: 4711)
    assert not list(database_mistakes(node))
    (remark,) = database_remarks(node)
    assert remark.startswith("node.folder: what waits in the database was not looked at: ")
    assert "the node is of user #4711, who may not use what" in remark


def test_of_a_file_that_no_backup_saves_it_is_said_and_of_the_own_one_by_any_name_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for database in ("", "sqlite:///node/node.sqlite", f"sqlite:///{tmp_path}/node/../node/node.sqlite"):
        node = Settings(node=NodeSettings(folder="node", database=database))
        open_node(node).dispose()
        assert not list(database_remarks(node))
        assert node_to_save(node) == Path("node")
    other = Settings(node=NodeSettings(folder="other", database=f"sqlite:///{tmp_path}/apart.sqlite"))
    open_node(other).dispose()
    (remark,) = database_remarks(other)
    assert re.match(
        rf"node.database: carina backup can't save {tmp_path}/apart.sqlite, only SQLite in .*: leave", remark
    )
    with pytest.raises(BadConfig, match="carina backup is for SQLite in the node's folder"):
        node_to_save(other)
