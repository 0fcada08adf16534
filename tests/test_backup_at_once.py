"""Two backups or restores to one folder: the first is whole, the other is refused and removes nothing of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Thread

import pytest

from carina.config import NodeSettings, Settings
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.keeping.backup import new_folder, save_node
from carina.keeping.making import part_and_lock
from carina.keeping.restore import restore_node
from carina.keeping.saved import read_backup
from kept_nodes import TODAY, KeptArrival, KeptJob, fill

KINDS = ["backup", "restore"]
KILLED = """
import os, signal, sys
from pathlib import Path
from carina.keeping.backup import new_folder
with new_folder(Path(sys.argv[1]), "backup") as part:
    (part / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def settings_in(folder: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder)))


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = settings_in(tmp_path / "node")
    engine = open_node(made)
    fill(engine, tmp_path / "node", [KeptArrival(jobs=(KeptJob(),))])
    engine.dispose()
    return made


def kill_one(place: Path) -> None:
    """One that is killed while it fills the folder for a place."""
    done = subprocess.run([sys.executable, "-c", KILLED, place], check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    assert (part_and_lock(place)[0] / "file").is_file()


def makers(node: Settings, tmp_path: Path) -> dict[str, Callable[[Path], object]]:
    save_node(node, tmp_path / "before", TODAY)
    return {
        "backup": lambda to: save_node(node, to, TODAY),
        "restore": lambda to: restore_node(settings_in(to), tmp_path / "before", TODAY),
    }


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_the_second_is_refused_and_leaves_the_first_alone(
    node: Settings, tmp_path: Path, first: str, second: str
) -> None:
    make, place = makers(node, tmp_path)[second], tmp_path / "saved"
    with new_folder(place, first) as part:
        (part / "file").write_text("x")
        for _ in range(2):
            with pytest.raises(BadConfig, match="saved: another backup or restore to this folder is under way") as told:
                make(place)
            assert told.value.code == f"{second}.under-way" and "\n" not in told.value.message
            assert (part / "file").is_file()
    assert [one.name for one in place.iterdir()] == ["file"]
    assert not [one for one in part_and_lock(place) if one.exists()]
    with pytest.raises(BadConfig, match="is not empty"):
        make(place)
    assert [one.name for one in place.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_at_once_one_is_made_and_is_whole(node: Settings, tmp_path: Path, kind: str) -> None:
    make, place, begin = makers(node, tmp_path)[kind], tmp_path / "saved", Barrier(4)
    made, refused = [], []

    def work() -> None:
        begin.wait()
        try:
            made.append(make(place))
        except BadConfig as error:
            refused.append(error.code)

    threads = [Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(made) == 1 and len(refused) == 3
    assert set(refused) <= {f"{kind}.under-way", f"{kind}.not-empty"}
    assert not [one for one in part_and_lock(place) if one.exists()]
    if kind == "backup":
        assert read_backup(place).said == made[0] and not made[0].lost
    else:
        assert (place / "node.sqlite").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_one_left_is_removed_by_the_next(node: Settings, tmp_path: Path, kind: str) -> None:
    make, place = makers(node, tmp_path)[kind], tmp_path / "saved"
    kill_one(place)
    make(place)
    assert (place / "node.sqlite").is_file() and not (place / "file").exists()
    assert not [one for one in part_and_lock(place) if one.exists()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_somebody_elses_is_refused_and_stays(node: Settings, tmp_path: Path, kind: str) -> None:
    make, place = makers(node, tmp_path)[kind], tmp_path / "saved"
    part, lock = part_and_lock(place)
    part.mkdir()
    (part / "mine").write_text("x")
    for _ in range(2):
        with pytest.raises(BadConfig, match=r"saved\.part: is there already, and is not known to be the rest of"):
            make(place)
        assert (part / "mine").is_file() and not lock.exists() and not place.exists()


def test_where_the_file_system_has_no_locks_the_file_is_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "saved"
    kill_one(place)

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    words = r"saved: a backup or restore .* was broken off, .* no locks: if none is, remove .*saved\.part\.lock"
    with pytest.raises(BadConfig, match=words), new_folder(place, "backup"):
        pass
    part, lock = part_and_lock(place)
    assert (part / "file").is_file()
    lock.unlink()
    with pytest.raises(BadConfig, match="is there already"), new_folder(place, "backup"):
        pass
    (part / "file").unlink()
    part.rmdir()
    with new_folder(place, "backup"), pytest.raises(BadConfig, match="has no locks"), new_folder(place, "restore"):
        pass
    assert place.is_dir() and not part.exists() and not lock.exists()


def test_one_that_fails_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "saved"
    with suppress(ZeroDivisionError), new_folder(place, "backup") as part:
        (part / "file").write_text(str(1 // 0))
    assert not list(tmp_path.iterdir())
