"""``carina arrivals`` as an administrator calls it, and what the audit trail says of commands."""

from __future__ import annotations

import json
from contextvars import copy_context
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert, select, update

from carina.cli.main import VERBS
from carina.config import NodeSettings, Settings
from carina.database import ARRIVAL, AUDIT, JOB
from carina.errors import BadConfig
from carina.jobs.places import open_node
from carina.receive.complete import RUN_REFUSED
from delivery_objects import add_job

WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
REASON = "series 1.2.3.1: it is a localizer, which is no volume."


def carina(verb: str, *words: str) -> Result:
    """A verb, called in the working folder."""
    command = getattr(import_module(VERBS[verb].module), VERBS[verb].command)
    assert isinstance(command, click.Command)
    return copy_context().run(CliRunner().invoke, command, words)  # the name in the audit trail is of this call alone


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node with an arrival that is queued and one in quarantine, and a job that waits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "carina.toml").write_text(
        '[sources.scanner]\nkind = "dicom"\nae_title = "A"\n[sources.other]\nkind = "dicom"\nae_title = "B"\n'
    )
    engine = open_node(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    common = {"source": "scanner", "sender": "CT1@192.0.2.1", "study_uid": "1.2.3", "first_at": WHEN, "last_at": WHEN}
    with engine.begin() as connection:
        for number, state in enumerate(("queued", "quarantined"), 1):
            why = REASON if state == "quarantined" else ""
            row = {**common, "series_uid": f"1.2.3.{number}", "state": state, "reason": why}
            connection.execute(insert(ARRIVAL).values(**row))
    engine.dispose()
    return tmp_path


def audited(node: Path) -> list[tuple[str, str, str]]:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    with engine.connect() as connection:
        rows = connection.execute(select(AUDIT.c.who, AUDIT.c.action, AUDIT.c.subject).order_by(AUDIT.c.id)).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def test_what_waits_in_quarantine_is_listed_with_its_reason_and_released(node: Path) -> None:
    (held,) = json.loads(carina("arrivals", "list", "--state", "quarantined", "--json").stdout)
    assert (held["id"], held["reason"]) == (2, REASON)
    done = carina("arrivals", "release", "2", "--source", "other")
    assert done.stdout.startswith("arrival 2: released as other, as before in project default;")
    (after, _) = json.loads(carina("arrivals", "list", "--json").stdout)
    assert (after["state"], after["source"], after["reason"]) == ("complete", "other", "")
    ((who, action, subject),) = [row for row in audited(node) if row[1] != "looked"]
    assert who.endswith(" (command line)") and (action, subject) == (
        "changed",
        "arrival 2: released as other, as before in project default",
    )


@pytest.mark.parametrize("state", ["kept", "apart"])
def test_what_was_kept_as_a_result_of_ours_is_released_with_a_warning(node: Path, state: str) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    with engine.begin() as connection:
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 2).values(state=state))
    engine.dispose()
    done = carina("arrivals", "release", "2")
    assert done.stdout.startswith("arrival 2: released as scanner, as before in project default;")
    assert ("warning: These are results of Carina's" in done.stderr) == (state == "kept")
    assert json.loads(carina("arrivals", "list", "--json").stdout)[0]["state"] == "complete"


@pytest.mark.parametrize("helpless", ["", f" {RUN_REFUSED}"])
def test_what_no_run_takes_is_released_with_the_reason_as_a_warning(node: Path, helpless: str) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    with engine.begin() as connection:
        why = f"series 1.2: slices are missing.{helpless}"
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 2).values(reason=why))
    engine.dispose()
    assert ("Releasing it doesn't help" in " ".join(carina("arrivals", "list").stdout.split())) == bool(helpless)
    said = "warning: Its run is refused for the reason for which it waited: series 1.2: slices are missing.\n"
    assert carina("arrivals", "release", "2").stderr.endswith(said) == bool(helpless)


def test_a_source_of_another_project_takes_what_it_releases_there_and_that_is_said(node: Path) -> None:
    with (node / "carina.toml").open("a") as file:
        file.write('[sources.west]\nkind = "dicom"\nae_title = "W"\nproject = "west"\n')
    told = "arrival 2: released as west, from project default to west"
    assert carina("arrivals", "release", "2", "--source", "west").stdout.startswith(f"{told};")
    assert [subject for _, action, subject in audited(node) if action == "changed"] == [told]


def test_the_series_and_its_reason_stand_below_each_row(node: Path) -> None:
    (held,) = json.loads(carina("arrivals", "list", "--state", "quarantined", "--json").stdout)
    _, *lines = carina("arrivals", "list").stdout.splitlines()
    rows = [line.split()[:2] for line in lines if not line.startswith(" ")]
    assert rows == [["2", "quarantined"], ["1", "queued"]]
    assert lines[1:3] == [f"    series {held['series_uid']}", f"    {REASON}"]
    assert max(map(len, lines)) <= 100


def test_what_is_run_as_part_of_a_later_arrival_is_joined_and_waits_for_nothing(node: Path) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    why = "more came: its instances are in arrival 2 as well."
    with engine.begin() as connection:
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == 1).values(reason=why))
    engine.dispose()
    _, *lines = carina("arrivals", "list", "--state", "joined").stdout.splitlines()
    assert lines[0].split()[:2] == ["1", "joined"] and lines[-1].strip() == why
    assert json.loads(carina("arrivals", "list", "--state", "queued", "--json").stdout) == []


def test_a_series_that_has_jobs_is_in_their_state(node: Path) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    for state, ended, shown in (("running", "", "running"), ("stopped", "healthy", "running, healthy")):
        with engine.begin() as connection:
            job = add_job(connection)
            values = {"arrival_id": 1, "state": state, "ended": ended}
            connection.execute(update(JOB).where(JOB.c.id == job).values(**values))
        assert f" {shown}  scanner " in carina("arrivals", "list").stdout
        (_, listed) = json.loads(carina("arrivals", "list", "--json").stdout)
        assert (listed["state"], ", ".join(listed["jobs"])) == ("queued", shown)
    engine.dispose()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["1"], "arrival 1 is queued: what waits in quarantine or apart, or is kept, is released. [arrival.state]"),
        (["7"], "there is no arrival 7. [arrival.unknown]"),
        (["2", "--source", "x"], "no source is called 'x'; release it as one of: scanner, other. [arrival.source]"),
    ],
)
def test_what_can_not_be_released_is_said_in_one_line(node: Path, words: list[str], why: str) -> None:
    done = carina("arrivals", "release", *words)
    assert isinstance(done.exception, BadConfig)
    assert f"{done.exception.message} [{done.exception.code}]" == why
    assert audited(node) == []


def test_changes_by_command_are_in_the_audit_trail(node: Path) -> None:
    engine = open_node(Settings(node=NodeSettings(folder=str(node / "node"))))
    with engine.begin() as connection:
        add_job(connection)
    engine.dispose()
    assert isinstance(carina("jobs", "priority", "1", "high").exception, BadConfig)  # it has stopped: nothing changes
    assert carina("deliveries", "resend").exit_code == 0
    assert audited(node) == []  # nor had anything failed


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "list"],
        ["jobs", "count"],
        ["jobs", "show", "1"],
        ["jobs", "cancel", "1"],
        ["jobs", "wait", "1"],
        ["jobs", "table", "t.csv"],
        ["deliveries", "list"],
        ["deliveries", "resend"],
        ["arrivals", "list"],
        ["arrivals", "release", "1"],
    ],
)
def test_who_looks_in_the_wrong_folder_is_told_so_and_no_node_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    error = carina(*words).exception
    assert isinstance(error, BadConfig)
    assert f"{tmp_path / 'node'}: no node is here yet (no node.sqlite)" in error.message and "--config" in error.message
    assert list(tmp_path.iterdir()) == []
