"""Destinations that the settings don't have: what goes there waits, is said, and goes to the old name or a new one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, insert, select

from carina.cli.main import carina
from carina.config import Destination, FolderDestination, NodeSettings, ObjectKind, Settings
from carina.database import AUDIT, DELIVERY, JOB
from carina.deliver import ledger
from carina.deliver.ledger import DeliveryState, Trouble
from carina.deliver.lost_destinations import strand, unstrand
from carina.deliver.pace import Pace
from carina.deliver.proof import Proof
from carina.deliver.sender import Sender
from carina.deliver.unknown_destination import STRANDED
from carina.errors import BadConfig, CarinaError
from carina.jobs.places import open_node
from carina.jobs.waiting_for import rename_destination, unknown_destinations
from delivery_objects import NOW, add_job, eventually, write_objects

SHARE = FolderDestination(path="share")
AWAY = Trouble(code="delivery.unreachable", words="GONE can't be reached")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_node(Settings(node=NodeSettings(folder=str(tmp_path / "node"))))
    yield made
    made.dispose()


def entered(engine: Engine, tmp_path: Path, destinations: dict[str, Destination | None], study: str = "1.2.3") -> int:
    files = write_objects(tmp_path / "node" / "runs" / study, study=study)
    with engine.begin() as connection:
        job = add_job(connection)
        number = ledger.enter(connection, job, destinations, files, folder=tmp_path / "node", now=NOW)
        assert number == 5 * len(destinations)
    return job


def add_waiting_job(connection: Connection, *destinations: str) -> int:
    row = {"source": "x", "pipeline": "default", "folder": "runs/9", "state": "pending", "priority": 1, "cores": 1}
    row |= {"memory_mb": 1, "created_at": NOW, "destinations": json.dumps(destinations)}
    key = connection.execute(insert(JOB).values(**row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def rows(connection: Connection, name: str) -> list[tuple[str, str]]:
    wanted = select(DELIVERY.c.state, DELIVERY.c.error_code).where(DELIVERY.c.destination == name)
    return [(row.state, row.error_code) for row in connection.execute(wanted)]


def ended(*words: str) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    done = CliRunner().invoke(carina, words, obj=[])
    error = done.exception
    return (error.exit_code, error.message) if isinstance(error, CarinaError) else (done.exit_code, done.output)


def test_what_goes_to_an_unknown_destination_waits_and_holds_up_no_other(engine: Engine, tmp_path: Path) -> None:
    entered(engine, tmp_path, {"share": SHARE, "GONE": None})
    with engine.begin() as connection:
        assert rows(connection, "share") == [("waiting", "")] * 5
        assert rows(connection, "GONE") == [("waiting", STRANDED)] * 5
        said = connection.execute(select(DELIVERY.c.error).where(DELIVERY.c.destination == "GONE").distinct()).all()
    assert [row.error for row in said] == [
        "GONE is not in the settings: put it back, or carina deliveries rename GONE NEW."
    ]


def test_a_destination_that_is_back_gets_what_it_takes(engine: Engine, tmp_path: Path) -> None:
    entered(engine, tmp_path, {"GONE": None})
    back: dict[str, Destination] = {"GONE": FolderDestination(path=str(tmp_path / "back"), takes=(ObjectKind.PDF,))}
    sender = Sender(engine, tmp_path / "node", back, lambda: NOW, Pace(first_s=0.1, longest_s=0.5, idle_s=0.02))

    def arrived() -> bool:
        with engine.connect() as connection:
            return rows(connection, "GONE") == [("confirmed", "")] * 2

    sender.start()
    eventually(arrived)
    assert sender.stop()
    assert len(list((tmp_path / "back").rglob("*.dcm"))) == 2


def test_what_may_be_at_the_peer_stays_whichever_kind_it_is(engine: Engine, tmp_path: Path) -> None:
    entered(engine, tmp_path, {"GONE": SHARE})
    with engine.begin() as connection:
        first, *_ = ledger.due(connection, "GONE", NOW)
        ledger.begin_sending(connection, first, NOW)
        strand(connection, ["GONE"])
        unstrand(connection, "GONE", FolderDestination(path="x", takes=(ObjectKind.SR,)))
        assert len(rows(connection, "GONE")) == 2  # the report, and the segmentation that was begun
        assert not [code for _, code in rows(connection, "GONE") if code]


def test_jobs_and_objects_that_wait_are_counted_by_name(engine: Engine, tmp_path: Path) -> None:
    entered(engine, tmp_path, {"share": SHARE, "GONE": None})
    with engine.begin() as connection:
        for names in (("GONE", "share"), ("GONE",), ("LOST",), ("share",), ()):
            add_waiting_job(connection, *names)
        found = unknown_destinations(connection, {"share": SHARE})
    assert list(found) == ["GONE", "LOST"]
    assert found["GONE"].startswith("2 job(s) and 5 object(s) wait for destination GONE, which the settings don't have")
    assert found["LOST"].startswith("1 job(s) wait for destination LOST, ")
    assert found["LOST"].endswith("or carina deliveries rename LOST NEW.")


def test_a_new_name_takes_over_rows_and_jobs(engine: Engine, tmp_path: Path) -> None:
    entered(engine, tmp_path, {"OLD": SHARE})
    with engine.begin() as connection:
        first, second, *rest = ledger.due(connection, "OLD", NOW)
        ledger.mark_confirmed(connection, [first.id], Proof.QUERY, NOW)
        ledger.mark_failed(connection, [second.id], AWAY)
        ledger.put_off(connection, [one.id for one in rest], AWAY, NOW.replace(year=2027))
        jobs = [add_waiting_job(connection, *names) for names in (("OLD", "share"), ("OLD", "NEW"), ("OLDER",))]
        assert rename_destination(connection, "OLD", "NEW", {"NEW", "share"}) == 5
        texts = [connection.execute(select(JOB.c.destinations).where(JOB.c.id == job)).scalar_one() for job in jobs]
        assert [json.loads(text) for text in texts] == [["NEW", "share"], ["NEW"], ["OLDER"]]
        unstrand(connection, "NEW", SHARE)
        assert {entry.id for entry in ledger.due(connection, "NEW", NOW)} == {one.id for one in rest}
        states = ledger.counts(connection)
    assert list(states) == ["NEW"]
    assert (states["NEW"][DeliveryState.CONFIRMED], states["NEW"][DeliveryState.FAILED]) == (1, 1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("OLD", "NOWHERE", r"destinations\.NOWHERE: is not in the settings; .* known: BUSY, NEW\."),
        ("NEW", "BUSY", r"destinations\.NEW: is in the settings; expected a name that they don't have any more"),
        ("NEVER", "NEW", r"destinations\.NEVER: no job names it, and no object was to go there\."),
        ("OLD", "BUSY", r"5 object\(s\) of OLD are in the ledger for BUSY as well; .* Add OLD under \[destinations\]"),
    ],
)
def test_a_new_name_that_can_not_take_over_is_refused(
    engine: Engine, tmp_path: Path, old: str, new: str, words: str
) -> None:
    entered(engine, tmp_path, {"OLD": SHARE, "BUSY": SHARE})
    with engine.begin() as connection, pytest.raises(BadConfig, match=words):
        rename_destination(connection, old, new, {"NEW", "BUSY"})
    with engine.begin() as connection:
        assert set(ledger.counts(connection)) == {"OLD", "BUSY"}


def test_commands_tell_of_an_unknown_destination_and_rename_it(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(engine, tmp_path, {"GONE": SHARE})
    with engine.begin() as connection:
        add_waiting_job(connection, "GONE")
    ports = "dicom.port = 21187\nweb.port = 21188\n"
    (tmp_path / "carina.toml").write_text(
        f'node.folder = "{tmp_path}/node"\n{ports}[destinations.NEW]\nkind = "folder"\npath = "new"\n'
    )
    monkeypatch.chdir(tmp_path)
    line = "1 job(s) and 5 object(s) wait for destination GONE, which the settings don't have"
    commands: dict[tuple[str, ...], tuple[int, str]] = {
        ("serve", "--check"): (4, f"destinations.GONE: {line}"),
        ("deliveries", "counts"): (0, line),
        ("deliveries", "list"): (0, line),
        ("deliveries", "resend"): (0, line),
        ("deliveries", "resend", "--destination", "GONE"): (4, "GONE is not in the settings: put it back, or carina"),
        ("deliveries", "rename", "GONE", "NEW"): (0, "5 objects are of NEW now."),
    }
    for words, (code, said) in commands.items():
        exit_code, told = ended(*words)
        assert (exit_code, said in told) == (code, True), (words, told)
    assert "GONE" not in ended("serve", "--check")[1]
    with engine.connect() as connection:
        trail = connection.execute(select(AUDIT.c.subject)).scalars().all()
    assert "5 deliveries: renamed from GONE to NEW" in trail


def test_nothing_is_renamed_while_a_sender_runs(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered(engine, tmp_path, {"GONE": SHARE})
    (tmp_path / "carina.toml").write_text(
        f'node.folder = "{tmp_path}/node"\n[destinations.NEW]\nkind = "folder"\npath = "new"\n'
    )
    monkeypatch.chdir(tmp_path)
    sender = Sender(engine, tmp_path / "node", {}, lambda: NOW)
    sender.start()
    code, said = ended("deliveries", "rename", "GONE", "NEW")
    assert sender.stop()
    assert code == 4 and said.endswith("another process delivers from this node's folder: stop it first.")
