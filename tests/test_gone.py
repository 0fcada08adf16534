"""A node whose folder lacks files that its database names says so when it starts, and when its settings are checked."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from carina.config import NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE
from carina.jobs.places import open_node
from carina.keeping.gone import tell_gone
from carina.service.check_database import database_mistakes, database_remarks
from kept_nodes import KeptArrival, KeptJob, fill


def lose_instance(folder: Path) -> None:
    (folder / "incoming/2/1.dcm").unlink()


def lose_run(folder: Path) -> None:
    shutil.rmtree(folder / "runs/1")


def set_run_aside(folder: Path) -> None:
    (folder / "unknown").mkdir()
    (folder / "runs/1").rename(folder / "unknown/run-1")


def lose_all(folder: Path) -> None:
    shutil.rmtree(folder / "incoming")
    shutil.rmtree(folder / "runs")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda _: None, ""),
        (set_run_aside, ""),
        (lose_instance, "instances: 1, runs: 0, such as incoming/2/1.dcm; the folder is a copy older"),
        (lose_run, "instances: 0, runs: 1, such as runs/1; the folder"),
        (lose_all, "instances: 4, runs: 1, such as incoming/"),
    ],
)
def test_what_the_latest_rows_name_is_looked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], words: str
) -> None:
    settings, folder = Settings(node=NodeSettings(folder=str(tmp_path / "node"))), tmp_path / "node"
    engine = open_node(settings)
    jobs = (KeptJob(), KeptJob(state="pending"), KeptJob(ended="faulted"))
    fill(
        engine,
        folder,
        [KeptArrival(jobs=jobs), KeptArrival(series="2"), KeptArrival(series="3"), KeptArrival(series="4")],
    )
    with engine.begin() as connection:  # removed, or not known to be on the disk
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 3).values(state="removed"))
        connection.execute(update(INSTANCE).where(INSTANCE.c.arrival_id == 4).values(flushed=0))
    shutil.rmtree(folder / "incoming/3")
    shutil.rmtree(folder / "incoming/4")
    shutil.rmtree(folder / "runs/3")
    harm(folder)
    with caplog.at_level(logging.WARNING):
        tell_gone(engine, folder)
    engine.dispose()
    remarks = [] if list(database_mistakes(settings)) else list(database_remarks(settings))
    assert len(caplog.messages) == len(remarks) == bool(words)
    for said in (*caplog.messages, *remarks):
        assert words in said and said.startswith((f"{folder}: of the latest 1000", "node.folder: of the latest 1000"))
