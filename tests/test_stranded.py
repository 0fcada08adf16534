"""A destination that is taken out of the settings: jobs that name it end, the others get theirs, its own waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from carina.api.result import Run
from carina.config import Destination, FolderDestination, NodeSettings, Settings
from carina.database import DELIVERY, database_now
from carina.deliver.sender import Sender
from carina.jobs import execute as execute_module
from carina.jobs.execute import execute
from carina.jobs.listing import find_job
from carina.jobs.places import open_node
from carina.jobs.queue import NewJob, Room, claim, submit
from carina.pipeline.manifest import DefinitionRecord, Manifest, write_manifest
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.parts import parts_of
from delivery_objects import CLASSES, NOW, eventually, write_objects

ROOM = Room(8000, 4)
GONE = "gone is not in the settings: put it back, or carina deliveries rename gone NEW."


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    share: dict[str, Destination] = {"share": FolderDestination(path=str(tmp_path / "share"))}
    return Settings(node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0), destinations=share)


@pytest.fixture
def engine(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """A node with a job that was asked for while the settings had ``gone`` as well, and has run since."""
    engine = open_node(settings)
    folder = Path(settings.node.folder, "runs", "1")

    def run(*_: Any) -> Run:
        write_objects(folder / "dicom")
        definition = DefinitionRecord(name="d", file="f", sha256="")
        write_manifest(Manifest(fingerprint="", started="", definition=definition), folder)
        return Run(folder)

    monkeypatch.setattr(execute_module, "run", run)
    with engine.begin() as connection:
        now = database_now(connection)
        new = NewJob(source="x", pipeline="default", memory_mb=1, cores=1, destinations=("gone", "share"))
        submit(connection, new, now)
        claimed = claim(connection, "worker", ROOM, ROOM, now)
    assert claimed is not None and execute(settings, engine, claimed[0])
    return engine


def rows(engine: Engine) -> list[tuple[str, str, str]]:
    with engine.connect() as connection:
        wanted = select(DELIVERY.c.destination, DELIVERY.c.state, DELIVERY.c.error).distinct()
        return sorted(tuple(row) for row in connection.execute(wanted))


def test_a_job_ends_without_it_and_its_objects_wait_in_the_ledger(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.connect() as connection:
        job = find_job(connection, 1)
    assert job is not None and (job.shown_state, job.error) == ("healthy", "")
    assert rows(engine) == [("gone", "waiting", GONE), ("share", "waiting", "")]
    sender = Sender(engine, Path(settings.node.folder), settings.destinations, lambda: NOW)
    assert GONE in "".join(record.getMessage() for record in caplog.get_records("setup"))
    sender.start()
    eventually(lambda: rows(engine) == [("gone", "waiting", GONE), ("share", "confirmed", "")])
    assert sender.stop()


def test_once_it_is_back_it_gets_what_waited(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    back = {**settings.destinations, "gone": FolderDestination(path=str(tmp_path / "gone"))}
    sender = Sender(engine, Path(settings.node.folder), back, lambda: NOW)
    sender.start()
    eventually(lambda: rows(engine) == [("gone", "confirmed", ""), ("share", "confirmed", "")])
    assert sender.stop()


def test_a_start_says_what_waits_and_the_rows_do_whatever_they_said(
    settings: Settings, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(update(DELIVERY).values(error_code="delivery.unreachable", error="it can't be reached"))
    node = RunningNode(settings=settings, engine=engine)
    node.stop.set()
    next(part for part in parts_of(node) if part.name == "sender")._work(node.stop)
    words = f"{len(CLASSES)} object(s) wait for destination gone, which the settings don't have: add it under"
    assert words in caplog.text
    assert rows(engine)[0] == ("gone", "waiting", GONE)


def test_health_warns_of_what_does_not_get_out(settings: Settings, engine: Engine) -> None:
    Path(settings.node.folder).mkdir(exist_ok=True)
    node = RunningNode(settings=settings, engine=engine)
    gone, share = (f"{len(CLASSES)} object(s) wait, since ", "carina deliveries list says more")
    told = [f"destinations.gone: {gone}the settings don't have it: {share}"]
    assert list(readiness(node).warnings) == told
    with engine.begin() as connection:
        away = {"error_code": "delivery.unreachable", "not_before": NOW}
        connection.execute(update(DELIVERY).where(DELIVERY.c.destination == "share").values(**away))
    told.append(f"destinations.share: {gone}the last that was tried failed [delivery.unreachable]: {share}")
    assert list(readiness(node).warnings) == told
    assert not readiness(node.seen_in(frozenset())).warnings
