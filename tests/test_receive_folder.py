"""A watched folder: what is left alone is taken in once and stays, whatever is restarted, removed or half written."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from carina.config import FolderSource
from carina.database import ARRIVAL, INSTANCE, WATCHED
from carina.receive import folder as folder_module
from carina.receive.folder import FileFate, WatchedFolder
from carina.receive.store import InstanceStore
from received_files import instance_rows, new_store, small_ct, stored_files


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InstanceStore]:
    made = new_store(tmp_path)
    yield made
    made.engine.dispose()


class Clock:
    """A clock that is set by hand."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def watched(inbox: Path, store: InstanceStore, clock: Clock) -> WatchedFolder:
    return WatchedFolder("inbox", FolderSource(path=str(inbox), quiet_s=10), store, clock_s=clock)


def settle(watching: WatchedFolder, clock: Clock) -> dict[FileFate, int]:
    """What becomes of the files once they have been left alone."""
    at_once = watching.look()
    clock.now_s += 10
    return dict(at_once + watching.look())


def test_files_are_taken_once_they_are_left_alone_and_stay(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    (inbox / "day 1" / "deep").mkdir(parents=True)
    (inbox / "IM1").write_bytes(small_ct("1.2.3.1"))
    (inbox / "day 1" / "deep" / "IM2").write_bytes(small_ct("1.2.3.2"))
    watching = watched(inbox, store, clock)
    assert not watching.look()
    clock.now_s = 9.9
    assert not watching.look()
    clock.now_s = 10
    assert watching.look() == {FileFate.NEW: 2}
    assert not watching.look()
    assert [file.name for file in stored_files(store)] == ["1.2.3.1.dcm", "1.2.3.2.dcm"]
    assert sorted(file.name for file in inbox.rglob("IM*")) == ["IM1", "IM2"]
    with store.engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.source, ARRIVAL.c.sender)).all() == [("inbox", "folder")]


def test_a_file_that_grows_waits(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    content = small_ct()
    watching = watched(inbox, store, clock)
    for size in (100, 200, len(content)):
        (inbox / "IM1").write_bytes(content[:size])
        clock.now_s += 10
        assert not watching.look()
    assert settle(watching, clock) == {FileFate.NEW: 1}


def test_a_file_that_changes_while_it_is_read_waits(
    inbox: Path, store: InstanceStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "IM1").write_bytes(small_ct())
    monkeypatch.setattr(folder_module, "FILE_READ_AT_ONCE", 100)
    original, seen = os.fstat, []

    def grows(handle: int) -> os.stat_result:
        seen.append(handle)
        if len(seen) == 2:
            with (inbox / "IM1").open("ab") as file:
                file.write(b"more")
        return original(handle)

    watching = watched(inbox, store, clock)
    watching.look()
    clock.now_s = 10
    monkeypatch.setattr("carina.receive.folder.os.fstat", grows)
    assert not watching.look()
    assert stored_files(store) == []
    monkeypatch.undo()
    (inbox / "IM1").write_bytes(small_ct())
    assert settle(watching, clock) == {FileFate.NEW: 1}


def test_nothing_is_taken_twice_by_a_later_process_even_if_what_was_stored_is_gone(
    inbox: Path, store: InstanceStore, clock: Clock
) -> None:
    (inbox / "IM1").write_bytes(small_ct())
    assert settle(watched(inbox, store, clock), clock) == {FileFate.NEW: 1}
    stored_files(store)[0].unlink()  # as retention does
    assert settle(watched(inbox, store, clock), clock) == {}
    assert stored_files(store) == []


def test_the_same_content_under_two_names_is_one_instance(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    (inbox / "IM1").write_bytes(small_ct())
    (inbox / "IM2").write_bytes(small_ct())
    assert settle(watched(inbox, store, clock), clock) == {FileFate.NEW: 1, FileFate.REPEATED: 1}
    assert instance_rows(store.engine) == 1


def test_a_file_that_is_replaced_is_taken_again(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    (inbox / "IM1").write_bytes(small_ct("1.2.3.1"))
    watching = watched(inbox, store, clock)
    settle(watching, clock)
    (inbox / "IM1").write_bytes(small_ct("1.2.3.22"))
    assert settle(watching, clock) == {FileFate.NEW: 1}
    with store.engine.connect() as connection:
        assert len(connection.execute(select(WATCHED)).all()) == 1


def test_what_is_no_instance_is_refused_once(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    (inbox / "notes.txt").write_text("of a patient")
    (inbox / "empty").touch()
    (inbox / "large").write_bytes(small_ct(rows=800))
    (inbox / "cut").write_bytes(small_ct()[:300])
    (inbox / "trick").write_bytes(small_ct("1.2.3.9", SeriesInstanceUID="1.2"))
    watching = watched(inbox, store, clock)
    assert settle(watching, clock) == {FileFate.REFUSED: 4, FileFate.NEW: 1}
    assert settle(watching, clock) == {}


def test_links_pipes_and_hidden_files_are_left_alone(inbox: Path, store: InstanceStore, clock: Clock) -> None:
    outside = inbox.parent / "outside"
    outside.mkdir()
    (outside / "IM1").write_bytes(small_ct())
    (inbox / "file").symlink_to(outside / "IM1")
    (inbox / "folder").symlink_to(outside)
    (inbox / "round").symlink_to(inbox)
    (inbox / ".IM1.partial").write_bytes(small_ct())
    os.mkfifo(inbox / "pipe")
    assert settle(watched(inbox, store, clock), clock) == {}


def test_a_folder_that_is_away_is_said_once_and_watched_again(
    inbox: Path, store: InstanceStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.rmdir()
    watching = watched(inbox, store, clock)
    watching.look()
    watching.look()
    words = f"folder of inbox: {inbox} can't be read (No such file or directory): let the node's user read it; what"
    words += " can't be taken waits."
    assert watching.outages.lasting == words
    assert [record.getMessage().partition(" It resumes")[0] for record in caplog.records] == [words]
    inbox.mkdir()
    (inbox / "IM1").write_bytes(small_ct())
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert settle(watching, clock) == {FileFate.NEW: 1}
    assert not watching.outages.lasting
    over = [one for record in caplog.records if "works again" in (one := record.getMessage())]
    assert [one.partition(" after")[0] for one in over] == ["folder of inbox: works again"]


def test_files_wait_while_the_disk_is_full(tmp_path: Path, inbox: Path, clock: Clock) -> None:
    store = new_store(tmp_path, free_gb=1e9)
    (inbox / "IM1").write_bytes(small_ct())
    assert settle(watched(inbox, store, clock), clock) == {}
    node = msgspec.structs.replace(store.settings.node, free_gb=0)
    roomy = InstanceStore(msgspec.structs.replace(store.settings, node=node), store.engine)
    assert settle(watched(inbox, roomy, clock), clock) == {FileFate.NEW: 1}
    store.engine.dispose()


def test_one_file_that_cannot_be_read_holds_up_no_other(
    inbox: Path, store: InstanceStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "A").write_bytes(small_ct("1.2.3.1"))
    (inbox / "B").write_bytes(small_ct("1.2.3.2"))
    original = os.open

    def denied(path: os.PathLike[str] | str, *more: int, **named: int) -> int:
        if Path(path).name == "A":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *more, **named)

    monkeypatch.setattr("carina.receive.folder.os.open", denied)
    watching = watched(inbox, store, clock)
    assert settle(watching, clock) == {FileFate.NEW: 1}
    monkeypatch.undo()
    assert settle(watching, clock) == {FileFate.NEW: 1}


def test_names_of_files_are_neither_logged_nor_kept(
    inbox: Path, store: InstanceStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    for name, content in {"DOE_JOHN": small_ct(), "DOE_JANE": b"none"}.items():
        (inbox / name).write_bytes(content)
    settle(watched(inbox, store, clock), clock)
    with store.engine.connect() as connection:
        rows = [connection.execute(select(table)).all() for table in (WATCHED, INSTANCE, ARRIVAL)]
    assert "DOE" not in caplog.text + repr(rows)


def test_many_files_are_watched_in_turns(
    inbox: Path, store: InstanceStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MOST_WAITING", 2)
    monkeypatch.setattr(folder_module, "LOOKED_UP_AT_ONCE", 3)
    for number in range(5):
        (inbox / f"IM{number}").write_bytes(small_ct(f"1.2.3.{number}"))
    watching = watched(inbox, store, clock)
    for _ in range(4):
        settle(watching, clock)
    assert instance_rows(store.engine) == 5


def test_what_is_never_taken_is_told_once_and_can_be_found(
    inbox: Path, store: InstanceStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Links, pipes, what is no instance: by size and time of change, for names may be patients'."""
    (inbox / "IM1").write_bytes(small_ct("1.2.3.1"))
    (inbox / "DOE link").symlink_to("IM1")
    os.mkfifo(inbox / "DOE pipe")
    odd = Path(os.fsdecode(os.fsencode(inbox) + b"/DOE\xff\n"))
    odd.write_bytes(b"no DICOM")
    for number, one in enumerate((inbox / "DOE link", inbox / "DOE pipe", odd)):
        os.utime(one, (number, number), follow_symlinks=False)
    watching = watched(inbox, store, clock)
    assert settle(watching, clock) == {FileFate.NEW: 1, FileFate.REFUSED: 1}
    assert not settle(watching, clock)
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    day = datetime.fromtimestamp(0).astimezone()
    assert sorted(one.removeprefix("folder of inbox: ") for one in said if "inbox" in one) == [
        f"a file of 0 bytes, changed {day:%Y-%m-%d %H:%M}:01 is not taken: it is a pipe, socket or device, no file.",
        f"a file of 3 bytes, changed {day:%Y-%m-%d %H:%M}:00 is not taken: links are not followed, put the file itself"
        " there.",
        f"a file of 8 bytes, changed {day:%Y-%m-%d %H:%M}:02: a file is no DICOM instance. [receive.no-instance]",
    ]


def test_many_files_that_are_refused_are_counted(
    inbox: Path, store: InstanceStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(15):
        (inbox / f"F{number:02}").write_bytes(b"no DICOM")
    assert settle(watched(inbox, store, clock), clock) == {FileFate.REFUSED: 15}
    said = [one.getMessage() for one in caplog.records if "receive.no-instance" in one.getMessage()]
    counted = "15 instances were refused for one reason [receive.no-instance]; the first 10 are above."
    assert (len(said), said[-1]) == (11, f"from the folder of inbox: {counted}")
