"""What lasts, as a full disk, is said once by every loop of the node that tries again: not each second."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from carina.config import FolderDestination, NodeSettings, RetentionSettings, Settings
from carina.database import OwnFolder
from carina.deliver.courier import Courier
from carina.deliver.pace import PACE
from carina.deliver.sender import Sender
from carina.errors import SAID_AGAIN_S, LastingTrouble
from carina.jobs import worker
from carina.jobs.worker import Worker
from carina.keeping import retention
from carina.keeping.removable import KeptKind
from carina.keeping.removal import Open
from carina.keeping.retention import Retention
from carina.service.loops import Part
from waiting import wait_until

FULL = OSError(errno.ENOSPC, "No space left on device")
TIMES = 20
RESUMES = "It resumes by itself when that is over."


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(tmp_path), database=f"sqlite:///{tmp_path}/n.sqlite"))


class Countdown(Event):
    """Waits for nothing, and is set after so many waits."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.left = waits

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.set()
        return self.is_set()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


def test_trouble_is_news_when_it_begins_changes_and_after_a_long_time() -> None:
    now = [0.0]
    trouble = LastingTrouble(lambda: now[0])
    assert not trouble.over()
    assert [trouble.is_news(words) for words in ("full", "full", "away", "full", "away")] == [
        True,
        False,
        True,
        False,
        False,
    ]
    now[0] = 12.0
    assert [trouble.over(), trouble.over()] == ["after 12 s", ""]
    assert not trouble.is_news("full"), "it comes and goes"
    assert not trouble.over(), "nobody was told that it had begun again"
    now[0] += SAID_AGAIN_S
    assert trouble.is_news("full")


def test_a_worker_says_once_that_its_database_is_full_and_once_that_it_no_longer_is(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, away = Exception("database or disk is full"), Exception("server closed the connection\n\tThis means")
    outcomes = [full] * TIMES + [away] * TIMES + [None]

    def turn(_: Worker) -> bool:
        if (failure := outcomes.pop(0)) is not None:
            raise OperationalError("update", {}, failure)
        return True

    monkeypatch.setattr(Worker, "turn", turn)
    monkeypatch.setattr(worker, "PAUSE_S", 0)
    with caplog.at_level(logging.INFO):
        Worker(node, engine, name="w").go(until_empty=True)
    assert [line.partition(" after")[0] for line in said(caplog)] == [
        f"worker w: the database can't be used (database or disk is full). {RESUMES}",
        f"worker w: the database can't be used (server closed the connection This means). {RESUMES}",
        "worker w: works again",
    ]


def test_a_sender_says_once_that_it_can_write_nothing(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried, enough = [0], Event()

    def resume(_: Courier) -> None:
        tried[0] += 1
        if tried[0] >= TIMES:
            enough.set()
        raise FULL

    monkeypatch.setattr(Courier, "resume", resume)
    pace = replace(PACE, first_s=0.0, idle_s=0.0)
    shares = {"share": FolderDestination(path=str(tmp_path))}
    sender = Sender(engine, tmp_path, shares, lambda: datetime.now(UTC), pace)
    with caplog.at_level(logging.INFO):
        sender.start()
        wait_until(enough.is_set)
        assert sender.stop()
    (line,) = said(caplog)
    assert line.startswith(f"destination share: {tmp_path}: no space is left there (")
    assert line.endswith(f" MB are free): make room. {RESUMES}")


def test_a_part_that_dies_of_a_fault_again_and_again_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    def work(stop: Event) -> None:
        raise ZeroDivisionError

    part = Part("dicom", work, stop=Countdown(TIMES))
    part.start()
    assert part.join(60)
    assert said(caplog) == ["a part of the node died"]


def test_a_part_whose_disk_is_full_says_so_once_in_a_sentence(
    tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def work(stop: Event) -> None:
        raise FULL

    stop = Countdown(TIMES)
    part = Part("dicom", work, stop=stop, own=OwnFolder(tmp_path, engine))
    with caplog.at_level(logging.INFO):
        part.start()
        assert part.join(60)
    assert part.status.deaths == TIMES
    (line,) = said(caplog)
    assert line.startswith(f"dicom: {tmp_path}: no space is left there (")
    assert [record.exc_info for record in caplog.records] == [None]


def test_a_part_whose_database_goes_away_says_so_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    reason = "server closed the connection\n\tunexpectedly"

    def work(stop: Event) -> None:
        raise OperationalError("select 1", {}, Exception(reason))

    part = Part("arrivals", work, stop=Countdown(TIMES))
    with caplog.at_level(logging.INFO):
        part.start()
        assert part.join(60)
    words = "the database can't be used (server closed the connection unexpectedly)."
    assert [(one.levelname, one.getMessage(), one.exc_info) for one in caplog.records] == [
        ("WARNING", f"arrivals: {words} {RESUMES}", None)
    ]
    assert part.status.deaths == TIMES


def test_files_that_resist_being_removed_are_named_once(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def resist(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    opened = [Open(id=number, kind=KeptKind.RUN, subject_id=number, why="old") for number in (1, 2)]
    monkeypatch.setattr(retention, "open_removals", lambda engine: opened)
    monkeypatch.setattr(retention, "finish_removal", resist)
    keeper = Retention(engine, tmp_path, RetentionSettings())
    with caplog.at_level(logging.INFO):
        for _ in range(TIMES):
            keeper.round()
    assert [line.partition(" is to be")[0] for line in said(caplog)] == ["run 1", "run 2"]
