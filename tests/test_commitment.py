"""What a report on storage commitment does to the ledger: whatever a node reports, only what it keeps is confirmed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from sqlalchemy import Connection, Engine, delete, select

from carina.config import DicomDestination
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.commitment import MOST_CONTRADICTIONS, take_report
from carina.deliver.ledger import DeliveryState, Entry, Trouble
from delivery_objects import NOW, add_job, new_ledger, write_objects

PACS = DicomDestination(host="pacs", port=104, ae_title="ARCHIVE", commitment=True)
DOUBT, LATER = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
BUSY = Trouble(code="delivery.refused", words="no room", status=0xA700)
TRANSACTION = "2.25.7"
Failed = dict[str, int] | list[tuple[str, int | None]]
UIDS = [f"1.2.3.9.{number}" for number in range(1, 6)]


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


def ask(engine: Engine, folder: Path, asked_at: datetime = LATER, answer: str = "stored") -> None:
    """Five objects were sent, and storage commitment was asked for all of them, by default when no doubt was left."""
    files = write_objects(folder / "runs" / "1")
    with engine.begin() as connection:
        connection.execute(delete(DELIVERY))
        ledger.enter(connection, add_job(connection), {"PACS": PACS}, files, folder=folder, now=NOW)
        for entry in ledger.due(connection, "PACS", NOW):
            ledger.begin_sending(connection, entry, DOUBT)
            ANSWERS[answer](connection, entry)
        for entry in ledger.due(connection, "PACS", NOW):
            ledger.mark_asked(connection, entry, TRANSACTION, now=asked_at, until=LATER)


def states(engine: Engine) -> dict[str, tuple[str, int]]:
    """The state of each object, and whether the peer is asked before it is sent."""
    with engine.connect() as connection:
        rows = connection.execute(select(DELIVERY.c.sop_instance_uid, DELIVERY.c.state, DELIVERY.c.ask)).all()
    return {row.sop_instance_uid: (row.state, row.ask) for row in rows}


def report(kept: list[str], failed: Failed, transaction: str = TRANSACTION) -> Dataset:
    items_failed = list(failed.items()) if isinstance(failed, dict) else failed
    information = Dataset()
    information.TransactionUID = transaction
    kept_items = [(uid, None) for uid in kept]
    for keyword, said in (("ReferencedSOPSequence", kept_items), ("FailedSOPSequence", items_failed)):
        items = []
        for uid, reason in said:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", uid
            if reason is not None:
                item.FailureReason = reason
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


STORED = Answer(outcome=Outcome.STORED, status=0)
ANSWERS: dict[str, Callable[[Connection, Entry], None]] = {
    "stored": lambda connection, entry: ledger.mark_sent(connection, entry, STORED, now=NOW, doubt_until=DOUBT),
    "refused": lambda connection, entry: ledger.mark_refused(connection, [entry.id], BUSY, NOW),
    "none": lambda connection, entry: ledger.mark_unknown(connection, entry, BUSY, until=NOW, doubt_until=DOUBT),
}
"""What becomes of an object that was sent."""

REASONS = [0x0112, 0x0110, 0x0119, 0x0213, 0xA700, None]


CONTRADICTIONS = [*((reason,) for reason in REASONS), *permutations(REASONS, 2)]
"""What a report fails an object for that it also keeps, or for two reasons."""


def contradictory(said: dict[str, tuple[int | None, ...]]) -> Dataset:
    kept = [uid for uid, reasons in said.items() if len(reasons) == 1]
    return report(kept, [(uid, reason) for uid, reasons in said.items() for reason in reasons])


def ask_again(engine: Engine, uids: Collection[str], transaction: str = "2.25.8") -> None:
    """They are due to be asked about, can't be sent, and are asked about in another transaction."""
    with engine.begin() as connection:
        due = [one for one in ledger.due(connection, "PACS", LATER + timedelta(days=1)) if one.sop_instance_uid in uids]
        assert len(due) == len(uids)
        for one in due:
            assert not ledger.begin_sending(connection, one, LATER)
            ledger.mark_asked(connection, one, transaction, now=LATER + timedelta(days=1), until=LATER)


@pytest.mark.parametrize("asked_at", [NOW + timedelta(seconds=1), LATER], ids=["in doubt", "no doubt"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_report_contradicts_itself_on_is_asked_about_again_before_it_is_sent(
    engine: Engine, tmp_path: Path, answer: str, asked_at: datetime
) -> None:
    """For whatever reasons, and after whatever answer to its C-STORE."""
    for begin in range(0, len(CONTRADICTIONS), len(UIDS)):
        said = dict(zip(UIDS, CONTRADICTIONS[begin:], strict=False))
        ask(engine, tmp_path, asked_at, answer)
        take_report(engine, contradictory(said), LATER)
        found = states(engine)
        assert {found[uid] for uid in said} == {("sent" if answer == "stored" else "waiting", 1)}
        ask_again(engine, said)
        first, *others = said
        take_report(engine, report([first], dict.fromkeys(others, 0x0112), "2.25.8"), LATER)
        found = states(engine)
        assert [found[uid] for uid in said] == [("confirmed", 1), *[("waiting", 0)] * len(others)]


@pytest.mark.parametrize("asked_at", [NOW + timedelta(seconds=1), LATER], ids=["in doubt", "no doubt"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_peer_whose_reports_go_on_contradicting_themselves_is_not_asked_for_ever(
    engine: Engine, tmp_path: Path, answer: str, asked_at: datetime
) -> None:
    """Each time after a longer wait; then the delivery has failed, and where it is tried again it is asked first."""
    said = dict(zip(UIDS, CONTRADICTIONS[4:], strict=False))
    ask(engine, tmp_path, asked_at, answer)
    for _ in range(2):
        assert [contradict(engine, said, f"2.25.{number}") for number in range(MOST_CONTRADICTIONS)] == [
            *((seconds, "sent" if answer == "stored" else "waiting") for seconds in (5, 10, 20, 40, 80, 160, 300)),
            (None, "failed"),
        ]
        with engine.begin() as connection:
            assert not ledger.due(connection, "PACS", LATER + timedelta(days=9))
            assert ledger.resend(connection) == len(said)
        answer = "refused"
    with engine.connect() as connection:
        words = set(connection.execute(select(DELIVERY.c.error)).scalars())
    assert words == {
        "8 reports on storage commitment contradict themselves: PACS keeps and fails the object, or fails it twice: "
        "mend it there, or set destinations.PACS.commitment to false, then resend; it is asked first."
    }
    ask_again(engine, said, TRANSACTION)
    take_report(engine, report(UIDS, {}), LATER)
    assert set(states(engine).values()) == {("confirmed", 1)}


def contradict(engine: Engine, said: dict[str, tuple[int | None, ...]], transaction: str) -> tuple[float | None, str]:
    """All are asked about, and the report contradicts itself; gives for how long they wait then, and as what."""
    ask_again(engine, said, transaction)
    information = contradictory(said)
    information.TransactionUID = transaction
    take_report(engine, information, LATER)
    with engine.connect() as connection:
        ((until, state),) = connection.execute(select(DELIVERY.c.not_before, DELIVERY.c.state).distinct())
    return (until - LATER).total_seconds() if until else None, state


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
