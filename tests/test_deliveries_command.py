"""``carina deliveries``: the ledger as an administrator sees it, and another try by hand."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from called import called
from carina.config import Destination, FolderDestination, NodeSettings, Settings
from carina.database import AUDIT
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome, short_status
from carina.deliver.ledger import DeliveryState, Trouble
from carina.deliver.proof import Proof
from carina.deliver.register import list_deliveries
from carina.jobs.places import open_node
from delivery_objects import NOW, add_job, write_objects


def carina(folder: Path, *words: str) -> str:
    done = called(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node where one object of two destinations is confirmed, and one has failed."""
    folder = tmp_path / "node"
    engine = open_node(_settings(folder))
    files = write_objects(folder / "runs" / "1")
    share: dict[str, Destination] = {"share": FolderDestination(path="a"), "archive": FolderDestination(path="b")}
    with engine.begin() as connection:
        ledger.enter(connection, add_job(connection), share, files, folder=folder, now=NOW)
        first, second, *_ = ledger.due(connection, "archive", NOW)
        stored = Answer(outcome=Outcome.STORED, status=0xB000, note="status 0xB000, elements coerced")
        ledger.begin_sending(connection, first, NOW)
        ledger.mark_sent(connection, first, stored, now=NOW + timedelta(seconds=1))
        ledger.mark_confirmed(connection, [first.id], Proof.QUERY, NOW + timedelta(seconds=2))
        ledger.mark_failed(connection, [second.id], Trouble(code="delivery.refused", words="no", status=0x0122))
    engine.dispose()
    known = "".join(f'[destinations.{name}]\nkind = "folder"\npath = "{name}"\n' for name in ("share", "archive"))
    (tmp_path / "carina.toml").write_text(f'node.folder = "{folder}"\n{known}')
    return tmp_path


def _settings(folder: Path) -> Settings:
    return Settings(node=NodeSettings(folder=str(folder)))


def test_the_ledger_is_shown_with_what_the_peer_said(node: Path) -> None:
    lines = carina(node, "deliveries", "list", "--destination", "archive").splitlines()
    assert len(lines) == 6
    assert lines[-1].split()[:7] == ["6", "1", "confirmed", "archive", "1.2.3.9.1", "1", "B000H"]
    assert lines[-1].endswith("elements coerced")
    (failed,) = json.loads(carina(node, "deliveries", "list", "--state", "failed", "--json"))
    assert (failed["sop_instance_uid"], failed["status"], failed["error"]) == ("1.2.3.9.2", 0x0122, "no")
    header, *rows = (line.split() for line in carina(node, "deliveries", "counts").splitlines())
    assert header == ["destination", "waiting", "sent", "confirmed", "failed"]
    assert rows == [["archive", "3", "0", "1", "1"], ["share", "5", "0", "0", "0"]]


def test_what_failed_waits_again_when_told(node: Path) -> None:
    asks = "for another try; each destination is asked first what it has.\n"
    assert carina(node, "deliveries", "resend", "--destination", "share") == f"0 objects wait {asks}"
    assert carina(node, "deliveries", "resend", "--job", "1") == f"1 object waits {asks}"
    assert json.loads(carina(node, "deliveries", "list", "--state", "failed", "--json")) == []
    engine = open_node(_settings(node / "node"))
    with engine.connect() as connection:
        assert connection.execute(select(AUDIT.c.subject).where(AUDIT.c.action == "changed")).scalars().all() == [
            "1 deliveries: sent again"
        ]
    engine.dispose()


@pytest.mark.parametrize("verb", ["list", "resend"])
def test_a_name_that_no_destination_has_is_refused_with_the_known_ones(node: Path, verb: str) -> None:
    with (node / "carina.toml").open("a") as file:
        file.write('[destinations.new]\nkind = "folder"\npath = "c"\n')
    command = ("deliveries", verb, "--destination")
    done = called(*command, "archiv", folder=node)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert "destinations.archiv: no destination is or was called so; known: archive, new, share." in done.stderr
    for name in ("share", "new"):  # of the ledger alone, of the settings alone
        assert called(*command, name, folder=node).returncode == 0


def test_pages_follow_each_other(node: Path) -> None:
    engine = open_node(_settings(node / "node"))
    with engine.connect() as connection:
        every = [one.id for one in list_deliveries(connection)]
        pages = list_deliveries(connection, at_most=4), list_deliveries(connection, at_most=4, before=every[3])
        waiting = list_deliveries(connection, state=DeliveryState.WAITING, job_id=1, destination="archive")
    engine.dispose()
    assert every == list(range(10, 0, -1))
    assert [one.id for page in pages for one in page] == every[:8]
    assert len(waiting) == 3 and all(one.created_at == NOW for one in waiting)


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "0000H"), (0xA700, "A700H"), (0x0110, "0110H"), (0x0122, "0122H"), (200, "200"), (503, "503")],
)
def test_a_status_is_shown_as_its_people_write_it(status: int, words: str) -> None:
    assert short_status(status) == words
