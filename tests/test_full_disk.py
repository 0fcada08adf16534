"""A full disk under any part of the node: one line that names the folder and what to do, and one when it is over."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import httpx
import msgspec
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from carina.cli import main as command_line
from carina.config import NodeSettings, Settings
from carina.database import Outages, database_now, open_database, outage_of, upgrade_schema
from carina.deliver.folder import store_in_folder
from carina.errors import BadConfig, CarinaError, unwritable
from carina.jobs.execute import failure_of
from carina.jobs.listing import list_jobs
from carina.jobs.queue import MOST_RETRIES, Failure, NewJob, Room, claim, fail, submit
from carina.jobs.worker import Worker
from carina.keeping.backup import new_folder
from carina.receive.part import unwritable_part
from carina.service import loops
from carina.service.app import web_app
from carina.service.health import readiness
from carina.service.loops import Part
from carina.service.node import RunningNode
from carina.service.parts import parts_of
from reading_slices import ct_slice, save
from served_nodes import opened
from waiting import wait_until

EVERY_PART = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
earlier = "pacs"
ask = "pacs"

[sources.inbox]
kind = "folder"
path = "{inbox}"

[destinations.pacs]
kind = "dicom"
host = "127.0.0.1"
port = 1
ae_title = "PACS"

[notices]
url = "http://127.0.0.1:1/hook"
secret = "0123456789abcdef0123456789abcdef"
"""


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def full_database(tmp_path: Path) -> OperationalError:
    """What SQLite says on a full disk; its own words, made by a bound on a database's pages."""
    connection = sqlite3.connect(tmp_path / "bounded.sqlite")
    connection.execute("pragma max_page_count = 2")
    try:
        connection.execute("create table a (b)")
        connection.execute("insert into a values (?)", ("x" * 100_000,))
    except sqlite3.OperationalError as error:
        return OperationalError("insert", {}, error)
    finally:
        connection.close()
    raise AssertionError("it is not full")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_database(f"sqlite:///{tmp_path}/n.sqlite")
    upgrade_schema(made)
    yield made
    made.dispose()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


@pytest.mark.parametrize("kind", ["file", "database"])
def test_every_part_tells_a_full_disk_once_and_that_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(loops, "SHORTEST_PAUSE_S", 0.0)
    monkeypatch.setattr(loops, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(loops, "WORKS_AGAIN_S", 0.0)
    node = opened(tmp_path, EVERY_PART.format(inbox=tmp_path))
    error = full() if kind == "file" else full_database(tmp_path)
    parts = list(parts_of(node))
    assert {one.name.partition(" ")[0] for one in parts} >= {
        *("jobs", "sender", "notices", "retention", "arrivals", "comparisons", "earlier", "fetches", "dicom", "folder"),
        "ask",
    }
    for part in parts:
        check_part(part, error, node.folder, caplog)


def check_part(part: Part, error: Exception, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    tries, over = [0], Event()

    def work(stop: Event) -> None:
        tries[0] += 1
        if tries[0] <= 5:
            raise error
        while not any("works again" in line for line in lines(caplog)) and not stop.wait(0.01):
            pass
        over.set()
        stop.wait()

    stop = Event()
    again = Part(part.name, work, stop=stop, own=part._own)
    again.start()
    wait_until(over.is_set)
    stop.set()
    assert again.join(60)
    began, ended = lines(caplog)
    assert began.startswith(f"{part.name}: {folder}: no space is left there (")
    assert "make room" in began
    assert ended.startswith(f"{part.name}: works again after ")
    assert [record.exc_info for record in caplog.records] == [None, None]


def test_a_file_that_the_error_names_says_which_folder_is_full(tmp_path: Path) -> None:
    outage = outage_of(OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "runs" / "x")), tmp_path)
    assert outage is not None
    assert outage.message.startswith(f"{tmp_path}/runs: no space is left there")
    assert outage_of(PermissionError(errno.EACCES, "Permission denied"), tmp_path) is None
    assert outage_of(ValueError("No space left on device"), tmp_path) is None


def test_how_much_is_free_makes_no_other_outage(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages("x", "")
    for free in ("0.1", "2", "0.3"):
        outages.tell(BadConfig("node.disk-full", f"/d: no space is left there ({free} MB are free)."))
    assert len(lines(caplog)) == 1


@pytest.mark.parametrize("place", ["turn", "take_up"])
def test_a_worker_outlives_a_full_disk(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("carina.jobs.worker.PAUSE_S", 0)
    troubles, original = [full() for _ in range(5)], Worker.turn

    def met(*_: object) -> None:
        if troubles:
            raise troubles.pop()

    def turn(worker: Worker) -> bool:
        met()
        return original(worker)

    if place == "turn":
        monkeypatch.setattr(Worker, "turn", turn)
    else:
        monkeypatch.setattr("carina.jobs.worker.take_up", met)
    Worker(settings_of(tmp_path), engine, name="w").go(until_empty=True)
    began, ended = lines(caplog)
    assert began.startswith(f"worker w: {tmp_path}: no space is left there (")
    assert ended.startswith("worker w: works again after ")


def settings_of(folder: Path, free_gb: float = 5.0) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder), database=f"sqlite:///{folder}/n.sqlite", free_gb=free_gb))


def test_a_job_waits_for_room_however_long_that_takes(engine: Engine) -> None:
    failure = Failure("output.disk-full", "full.", may_pass=True, is_outage=True)
    with engine.begin() as connection:
        now = database_now(connection)
        submit(connection, NewJob(source="/s", pipeline="p", memory_mb=1, cores=1), now)
        for _ in range(3 * MOST_RETRIES):
            claimed = claim(connection, "w", Room(100, 4), Room(100, 4), now)
            assert claimed is not None
            assert fail(connection, claimed[0], failure, now)
            now += timedelta(minutes=1)
        (job,) = list_jobs(connection).jobs
    assert (job.shown_state, job.error_code) == ("pending", "output.disk-full")


@pytest.mark.parametrize(("free", "outage"), [(4e9, "outage"), (6e9, "")])
def test_a_run_that_is_too_large_for_the_disk_is_no_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, outage: str
) -> None:
    monkeypatch.setattr("carina.jobs.execute.shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    failure = failure_of(full(), tmp_path, settings_of(tmp_path))
    assert (failure.code, failure.may_pass, failure.is_outage) == ("output.disk-full", True, bool(outage))


def test_a_disk_of_its_own_for_runs_that_is_full_is_an_outage_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = opened(tmp_path)
    bounds = msgspec.structs.replace(node.settings.node, free_gb=5.0)
    node = replace(node, settings=msgspec.structs.replace(node.settings, node=bounds))
    runs = node.folder / "runs"
    runs.mkdir(exist_ok=True)

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=3e6 if Path(folder).is_relative_to(runs) else 900e9)

    monkeypatch.setattr("carina.jobs.execute.shutil.disk_usage", usage)
    for run in (runs / "7", runs / "8" / "deeper"):  # made, or not yet
        assert failure_of(full(), run, node.settings).is_outage
    (trouble,) = [one for one in readiness(node).troubles if one.startswith("disk: ")]
    assert trouble.startswith("disk: 0.0 GB are free for runs, 5 must be")


def test_a_worker_tells_of_a_job_that_found_no_room(
    tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = Worker(settings_of(tmp_path), engine, name="w")
    for failed_of in ("output.disk-full", "output.disk-full", ""):
        worker._tell_room(failed_of)
    began, ended = lines(caplog)
    assert began.startswith(f"worker w: {tmp_path}/runs: no space is left there")
    assert ended.startswith("worker w: works again after ")


async def asked(node: RunningNode, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(web_app(node))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    "place", ["carina.service.rest.job_pages.list_jobs", "carina.service.access.gate.Gate.__call__"]
)
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (lambda _: full(), 507, "node.disk-full"),
        (full_database, 507, "node.disk-full"),
        (lambda _: OperationalError("select", {}, Exception("it was shut down")), 503, "node.database-away"),
    ],
)
def test_a_request_is_told_that_the_disk_is_full_and_no_fault_of_ours(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Callable[[Path], Exception],
    status: int,
    code: str,
    place: str,
) -> None:
    node = opened(tmp_path)
    error = failure(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, broken)
    answer = asyncio.run(asked(node, "/api/v1/jobs"))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "shut down" not in answer.text
    assert [record.exc_info for record in caplog.records] == [None]


def test_a_backup_onto_a_full_disk_says_so(tmp_path: Path) -> None:
    error = full_database(tmp_path).orig
    assert error is not None
    with (
        pytest.raises(BadConfig, match="there: no space left: make room, then run the same command again"),
        new_folder(tmp_path / "there", "backup"),
    ):
        raise error
    assert not (tmp_path / "there").exists()


def test_a_command_tells_a_full_database_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**_: object) -> None:
        raise full_database(tmp_path)

    monkeypatch.setattr(command_line.carina, "main", broken)
    assert command_line._run() == BadConfig.exit_code
    assert capsys.readouterr().err.startswith("carina: the node's folder: no space is left there")


QUOTA = OSError(errno.EDQUOT, "Disk quota exceeded")
WITHIN = r"no space (is )?left( there)? within the quota( \(.* MB are free\))?: make room, or raise the quota"


@pytest.mark.parametrize(
    "told",
    [
        lambda folder: outage_of(QUOTA, folder),
        lambda folder: unwritable(QUOTA, folder),
        lambda folder: unwritable_part(folder, QUOTA),
    ],
)
def test_where_a_quota_is_used_up_it_is_that_which_is_said(tmp_path: Path, told: Callable[[Path], CarinaError]) -> None:
    assert re.search(WITHIN, told(tmp_path).message), told(tmp_path).message


def test_a_destination_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used_up(*_: object) -> None:
        raise QUOTA

    file = save(ct_slice((0, 0, 0), 1), tmp_path / "slice")
    monkeypatch.setattr("carina.deliver.folder.copy_whole", used_up)
    answer = store_in_folder(file, tmp_path / "out")
    words = f"no space is left in {tmp_path / 'out'} within the quota, make room, or raise the quota there: "
    assert answer.note.startswith(words)
