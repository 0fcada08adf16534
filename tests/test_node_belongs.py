"""A node's folder is used with its own database alone: with another, what it holds would be the rest of a crash."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.jobs.places import DATABASE, open_node
from carina.receive.recover import recover


def settings_of(folder: Path, database: str = "") -> Settings:
    return Settings(node=NodeSettings(folder=str(folder), database=database))


def received(folder: Path) -> Path:
    """A node's folder in which something lies, once opened; the file."""
    open_node(settings_of(folder)).dispose()
    file = folder / "incoming" / "1" / "1.2.3.dcm"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"accepted")
    return file


def test_a_folder_knows_its_database_again(tmp_path: Path) -> None:
    received(tmp_path / "node")
    open_node(settings_of(tmp_path / "node")).dispose()
    moved = shutil.move(tmp_path / "node", tmp_path / "elsewhere")
    open_node(settings_of(Path(moved))).dispose()


@pytest.mark.parametrize("gone", [DATABASE, f"{DATABASE}-wal"])
def test_a_database_that_was_deleted_is_not_made_anew_over_what_was_received(tmp_path: Path, gone: str) -> None:
    file = received(tmp_path / "node")
    for one in (tmp_path / "node").glob(f"{DATABASE}*"):
        one.unlink()
    if gone != DATABASE:
        (tmp_path / "node" / DATABASE).touch()
    with pytest.raises(
        BadConfig, match=r"node was kept with another database than sqlite.*node\.sqlite\. Name the"
    ) as caught:
        open_node(settings_of(tmp_path / "node"))
    assert file.read_bytes() == b"accepted"
    assert "\n" not in str(caught.value)


def test_another_database_is_refused_and_nothing_is_removed(tmp_path: Path) -> None:
    file = received(tmp_path / "node")
    other = settings_of(tmp_path / "node", f"sqlite:///{tmp_path / 'other.sqlite'}")
    for _ in range(2):
        with pytest.raises(BadConfig, match=r"was kept with another database .*a new node needs a new folder"):
            open_node(other)
    assert file.exists()
    open_node(settings_of(tmp_path / "node")).dispose()


@pytest.mark.parametrize("part", ["incoming", "runs"])
def test_a_folder_of_an_earlier_version_is_not_given_to_an_empty_database(tmp_path: Path, part: str) -> None:
    (tmp_path / "node" / part / "7").mkdir(parents=True)
    with pytest.raises(BadConfig, match=r"holds series or runs, of which .* knows nothing"):
        open_node(settings_of(tmp_path / "node"))


def test_a_folder_of_an_arrival_that_the_database_lost_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = received(tmp_path / "node")
    settings = settings_of(tmp_path / "node")
    with caplog.at_level(logging.WARNING):
        assert recover(settings, open_node(settings)) == 0
    assert not file.exists()
    aside = tmp_path / "node" / "unknown" / "1" / "1.2.3.dcm"
    assert aside.read_bytes() == b"accepted"
    assert f"1 file of an arrival that the database doesn't know: moved to {aside.parent}" in caplog.text
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"another")
    recover(settings, open_node(settings))
    assert aside.read_bytes() == b"accepted"
    assert (tmp_path / "node" / "unknown" / "1-2" / "1.2.3.dcm").read_bytes() == b"another"
