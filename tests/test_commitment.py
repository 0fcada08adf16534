"""What a report on storage commitment does to the ledger: whatever a node reports, only what it keeps is confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from sqlalchemy import Engine, delete, select

from carina.config import DicomDestination
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.commitment import take_report
from carina.deliver.ledger import DeliveryState
from delivery_objects import NOW, add_job, new_ledger, write_objects

PACS = DicomDestination(host="pacs", port=104, ae_title="ARCHIVE", commitment=True)
LATER = NOW + timedelta(minutes=2)
TRANSACTION = "2.25.7"
UIDS = [f"1.2.3.9.{number}" for number in range(1, 6)]


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


def ask(engine: Engine, folder: Path, asked_at: datetime = LATER) -> None:
    """Five objects were sent, and storage commitment was asked for all of them, by default when no doubt was left."""
    files = write_objects(folder / "runs" / "1")
    with engine.begin() as connection:
        connection.execute(delete(DELIVERY))
        ledger.enter(connection, add_job(connection), {"PACS": PACS}, files, folder=folder, now=NOW)
        for entry in ledger.due(connection, "PACS", NOW):
            doubt = NOW + timedelta(minutes=1)
            ledger.begin_sending(connection, entry, doubt)
            stored = Answer(outcome=Outcome.STORED, status=0)
            ledger.mark_sent(connection, entry, stored, now=NOW, doubt_until=doubt)
        for entry in ledger.due(connection, "PACS", NOW):
            ledger.mark_asked(connection, entry, TRANSACTION, now=asked_at, until=LATER)


def states(engine: Engine) -> dict[str, tuple[str, int]]:
    """The state of each object, and whether the peer is asked before it is sent."""
    with engine.connect() as connection:
        rows = connection.execute(select(DELIVERY.c.sop_instance_uid, DELIVERY.c.state, DELIVERY.c.ask)).all()
    return {row.sop_instance_uid: (row.state, row.ask) for row in rows}


def report(kept: list[str], failed: dict[str, int], transaction: str = TRANSACTION) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction
    for keyword, uids in (("ReferencedSOPSequence", kept), ("FailedSOPSequence", list(failed))):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", uid
            if keyword == "FailedSOPSequence":
                item.FailureReason = failed[uid]
            items.append(item)
        if items:
            setattr(information, keyword, Items(items))
    return information


def test_each_object_gets_what_the_report_says_of_it(engine: Engine, tmp_path: Path) -> None:
    ask(engine, tmp_path)
    take_report(engine, report(UIDS[:2], {UIDS[2]: 0x0112, UIDS[3]: 0x0110, UIDS[4]: 0x0119}), LATER)
    assert states(engine) == {
        UIDS[0]: ("confirmed", 1),
        UIDS[1]: ("confirmed", 1),
        UIDS[2]: ("waiting", 0),  # it is not there: sent again
        UIDS[3]: ("sent", 1),  # it can't say now: asked again
        UIDS[4]: ("failed", 1),  # it has another object of this UID
    }
    with engine.begin() as connection:
        assert all(not ledger.due(connection, "PACS", now) for now in (LATER, LATER + timedelta(seconds=4)))
        assert len(ledger.due(connection, "PACS", LATER + timedelta(seconds=5))) == 2


def test_what_was_sent_just_now_may_be_on_its_way(engine: Engine, tmp_path: Path) -> None:
    """A report is as old as the question, however late it comes."""
    ask(engine, tmp_path, asked_at=NOW + timedelta(seconds=1))
    take_report(engine, report([], dict.fromkeys(UIDS, 0x0112)), LATER)
    assert set(states(engine).values()) == {("sent", 1)}
    with engine.begin() as connection:
        assert not ledger.due(connection, "PACS", LATER)
        assert len(ledger.due(connection, "PACS", LATER + timedelta(seconds=5))) == 5


@pytest.mark.parametrize("transaction", ["2.25.8", "", " "])
def test_a_report_on_another_transaction_changes_nothing(engine: Engine, tmp_path: Path, transaction: str) -> None:
    ask(engine, tmp_path)
    take_report(engine, report(UIDS, {}, transaction), LATER)
    take_report(engine, Dataset(), LATER)
    assert set(states(engine).values()) == {("sent", 1)}


def test_a_report_that_comes_twice_or_is_taken_back_changes_nothing_more(engine: Engine, tmp_path: Path) -> None:
    ask(engine, tmp_path)
    for information in (report(UIDS, {}), report(UIDS, {}), report([], dict.fromkeys(UIDS, 0x0112))):
        take_report(engine, information, LATER)
    assert set(states(engine).values()) == {("confirmed", 1)}


@pytest.mark.parametrize("asked_at", [NOW + timedelta(seconds=1), LATER], ids=["in doubt", "no doubt"])
@pytest.mark.parametrize("reason", [0x0112, 0x0110, 0x0119, 0xA700])
def test_the_first_answer_of_a_transaction_counts_and_a_refusal_leaves_no_status_on_what_is_confirmed(
    engine: Engine, tmp_path: Path, reason: int, asked_at: datetime
) -> None:
    ask(engine, tmp_path, asked_at)
    for information in (report(UIDS, dict.fromkeys(UIDS, reason)), report(UIDS, {})):
        take_report(engine, information, LATER)
    assert "confirmed" not in {state for state, _ in states(engine).values()}
    with engine.begin() as connection:
        ledger.resend(connection)
        for entry in ledger.due(connection, "PACS", LATER + timedelta(days=1)):
            ledger.mark_asked(connection, entry, "2.25.8", now=LATER, until=LATER)
    take_report(engine, report(UIDS, {}, "2.25.8"), LATER)
    assert {state for state, _ in states(engine).values()} == {"confirmed"}
    with engine.connect() as connection:
        assert set(connection.execute(select(DELIVERY.c.status)).scalars()) <= {None, 0}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    kept=st.lists(st.sampled_from([*UIDS, "9.9", ""]), max_size=8),
    failed=st.dictionaries(st.sampled_from([*UIDS, "9.9"]), st.integers(0, 0xFFFF), max_size=6),
)
def test_only_what_a_report_keeps_and_does_not_fail_is_confirmed(
    engine: Engine, tmp_path: Path, kept: list[str], failed: dict[str, int]
) -> None:
    ask(engine, tmp_path)
    take_report(engine, report(kept, failed), LATER)
    confirmed = {uid for uid, (state, _) in states(engine).items() if state == DeliveryState.CONFIRMED}
    assert confirmed == (set(kept) - set(failed)) & set(UIDS)
