"""Every command of a node that shows, changes or copies what is in it: who gave it is in the audit trail."""

from __future__ import annotations

import getpass
import sqlite3
from collections.abc import Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from carina.cli.main import VERBS
from carina.config import NodeSettings, Settings
from carina.database import AUDIT, JOB
from carina.jobs.places import open_node
from carina.receive.fetch import FoundSeries
from carina.receive.pull import Pulled
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from kept_nodes import KeptArrival, KeptJob, fill
from test_other_user import COMMANDS

SAID = {
    "arrivals list": [("looked", "arrivals")],
    "arrivals release 1 --source other": [("changed", "arrival 1: released as other, as before in project default")],
    "backup ../saved": [("copied", "the node: backup to {here}/../saved")],
    "deliveries list": [("looked", "deliveries")],
    "deliveries resend --destination PACS": [("changed", "1 deliveries: sent again")],
    "deliveries rename OLD PACS": [("changed", "1 deliveries: renamed from OLD to PACS")],
    "fetch PACS --accession A1": [("fetched", "series 1.2.3 of PACS: asked for")],
    "fetch PACS --accession A1 --list": [("looked", "series 1.2.3 of PACS: listed")],
    "jobs list": [("looked", "jobs")],
    "jobs show 1": [("looked", "job 1")],
    "jobs cancel 1": [("changed", "job 1: cancel")],
    "jobs retry 1": [("changed", "job 1: retry")],
    "jobs priority 1 high": [("changed", "job 1: priority high")],
    "jobs logs 1": [("looked", "log of job 1")],
    "jobs table t.csv": [("copied", "table of jobs: to {here}/t.csv")],
    "submit .": [("changed", "job 2: submitted")],
    "submit . --each folder": [("changed", "job 2: submitted"), ("changed", "job 3: submitted")],
}
"""What the trail says of each; the number is that of a job that the command can be given for."""

NOTHING_OF_PATIENTS = {"deliveries counts", "jobs count", "jobs wait 1", "mend ", "worker --until-empty"}
"""They show numbers and ends, or run what others asked for; a database that is whole is left alone."""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "carina.toml").write_text(
        '[node]\nfree_gb = 0\n[sources.other]\nkind = "dicom"\nae_title = "A"\n[destinations.PACS]\nkind = "dicom"\n'
        'host = "127.0.0.1"\nport = 104\nae_title = "P"\n'
    )
    return here


@pytest.fixture
def pacs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PACS that has one series, and gives it."""
    found = [FoundSeries(study_uid="1.2", series_uid="1.2.3", study_date="", description="", instances=1)]

    def pulled(*_: object, **__: object) -> Sequence[Pulled]:
        return [Pulled("came", is_whole=True)]

    monkeypatch.setattr("carina.receive.pull.find_at", lambda *_: found)
    monkeypatch.setattr("carina.receive.pull.pull", pulled)


def prepared(words: str) -> None:
    """A node in which the command has something to do."""
    engine, folder = open_node(Settings(node=NodeSettings(folder="node"))), Path("node")
    waits = "cancel" in words or "priority" in words
    job = KeptJob(state="pending") if waits else KeptJob(ended="faulted", deliveries=("failed",))
    fill(engine, folder, [KeptArrival(state="quarantined" if "release" in words else "queued", jobs=(job,))])
    with engine.begin() as connection:
        connection.execute(JOB.update().values(attempt=1))
        connection.exec_driver_sql(f"update delivery set destination = '{'OLD' if 'rename' in words else 'PACS'}'")
    engine.dispose()
    if words.startswith("submit"):
        for name in ("a", "b") if "--each" in words else ("a",):
            write_ct_series(chest_phantom(shape=(36, 200, 200), lesions=0).volume, Path("in") / name)


def trail() -> list[tuple[str, str, str]]:
    engine = open_node(Settings(node=NodeSettings(folder="node")))
    with engine.connect() as connection:
        rows = connection.execute(select(AUDIT.c.who, AUDIT.c.action, AUDIT.c.subject).order_by(AUDIT.c.id)).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def given(words: str) -> str:
    verb, *more = words.split()
    command = getattr(import_module(VERBS[verb].module), VERBS[verb].command)
    assert isinstance(command, click.Command)
    done = copy_context().run(CliRunner().invoke, command, ["in" if one == "." else one for one in more])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stderr


def test_every_command_of_a_node_is_here() -> None:
    every = {f"{verb} {words}" for verb, each in COMMANDS.items() for words in each}
    assert every == {*SAID, *NOTHING_OF_PATIENTS}


@pytest.mark.parametrize("words", SAID)
@pytest.mark.usefixtures("pacs")
def test_who_gave_a_command_is_in_the_trail(node: Path, words: str) -> None:
    prepared(words)
    given(words)
    who = f"{getpass.getuser()} (command line)"
    assert trail() == [(who, action, subject.format(here=node)) for action, subject in SAID[words]]


def test_a_backup_and_the_restored_node_both_say_who(node: Path) -> None:
    prepared("backup")
    given("backup ../saved")
    (node / "node").rename(node / "old")
    given("restore ../saved")
    who = f"{getpass.getuser()} (command line)"
    assert [(name, action) for name, action, _ in trail()] == [(who, "copied"), (who, "changed")]
    assert datetime.now(UTC).strftime("the node, from the backup of %Y-") in trail()[-1][2]


@pytest.mark.parametrize("words", [words for words, said in SAID.items() if said[0][0] == "looked"])
@pytest.mark.usefixtures("pacs")
def test_a_full_node_is_shown_all_the_same(node: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def full(*_: object) -> None:
        raise OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full"))

    prepared(words)
    monkeypatch.setattr("carina.service.changes.audit", full)
    assert given(words) == "this is not in the audit trail, which can't be written (database or disk is full)\n"
    assert trail() == []
