"""A node whose SQLite is damaged while it receives refuses what comes, to be sent again, and the log says why once."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from sqlalchemy.exc import IntegrityError

from carina.config import NodeSettings, Settings
from carina.database import Outages
from carina.errors import told
from carina.jobs.places import open_node
from carina.receive.files import arriving_file, read_says
from carina.receive.instance import TAKEN_LATER, NotAccepted
from carina.receive.part import unwritable_row
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.service.refusals import OUTAGE_STATUSES, OUTAGE_WORDS
from saved_nodes import PAGE
from test_receive_apart import files

__all__ = ["files"]


def accept(store: InstanceStore, file: Path) -> Accepted:
    with arriving_file(file, read_says(file)) as arriving:
        return store.accept(arriving, SentBy("scanner", "CT1@192.0.2.1"))


def test_what_comes_is_to_be_sent_again_and_what_was_accepted_stays(
    tmp_path: Path, files: Sequence[Path], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0))
    engine = open_node(settings)
    store = InstanceStore(settings, engine)
    assert {accept(store, file) for file in files[:6]} == {Accepted.NEW}
    engine.dispose()
    database = tmp_path / "node/node.sqlite"
    with closing(sqlite3.connect(database)) as plain:
        plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = database.read_bytes()
    database.write_bytes(content[:PAGE] + Random(1).randbytes(len(content) - PAGE))
    came = sorted((tmp_path / "node/incoming").rglob("*.dcm"))
    outages = Outages("dicom", settings.node.folder)
    for file in files[6:]:
        with pytest.raises(
            NotAccepted, match=r"node.sqlite: the node's database is damaged \(.*: stop the node, save"
        ) as e:
            accept(store, file)
        assert (e.value.status, e.value.code in TAKEN_LATER) == (0xA700, True)
        assert e.value.__cause__ is not None
        told_as = outages.met(e.value.__cause__)
        assert told_as is not None and told_as.code in OUTAGE_STATUSES.keys() & OUTAGE_WORDS.keys()
    [line] = caplog.messages
    assert line.startswith(f"dicom: {database}: the node's database is damaged (") and "resumes" not in line
    assert [one for one in came if not one.is_file()] == []
    engine.dispose()


def test_a_fault_of_ours_is_not_taken_for_damage(tmp_path: Path) -> None:
    fault = IntegrityError("insert", {}, Exception("UNIQUE constraint failed"))
    with pytest.raises(IntegrityError, match="UNIQUE constraint failed"):
        unwritable_row(tmp_path, fault)
    assert told(fault).code == "bug.IntegrityError"
