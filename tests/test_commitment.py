"""What a report on storage commitment does to the ledger: whatever a node reports, only what it keeps is confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from copy import deepcopy
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStepNotification,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)
from sqlalchemy import Connection, Engine, delete, select

from carina.config import DicomDestination
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.commitment import MOST_CONTRADICTIONS, take_report
from carina.deliver.ledger import DeliveryState, Entry, Trouble
from carina.deliver.reported import ALL_KEPT, SOME_REFUSED, PeerReport, ReportRefused, hear_report, read_report
from delivery_objects import CLASSES, NOW, add_job, new_ledger, write_objects

PACS = DicomDestination(host="pacs", port=104, ae_title="ARCHIVE", commitment=True)
DOUBT, LATER = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
BUSY = Trouble(code="delivery.refused", words="no room", status=0xA700)
TRANSACTION = "2.25.7"
Failed = dict[str, int] | list[tuple[str, int | None]]
UIDS = [f"1.2.3.9.{number}" for number in range(1, 6)]
OF_CLASS = dict(zip(UIDS, CLASSES, strict=True))


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
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = OF_CLASS.get(uid, "1.2.3"), uid
            if reason is not None:
                item.FailureReason = reason
            items.append(item)
        if items:
            setattr(information, keyword, Items(items))
    return information


def take(engine: Engine, information: Dataset, event_type: int = 0) -> None:
    """The ledger is given a report of the event type that it should have, or of another."""
    event_type = event_type or (SOME_REFUSED if "FailedSOPSequence" in information else ALL_KEPT)
    take_report(engine, read_report(event_type, information), LATER)


def test_each_object_gets_what_the_report_says_of_it(engine: Engine, tmp_path: Path) -> None:
    ask(engine, tmp_path)
    take(engine, report(UIDS[:2], {UIDS[2]: 0x0112, UIDS[3]: 0x0110, UIDS[4]: 0x0119}))
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
    take(engine, report([], dict.fromkeys(UIDS, 0x0112)))
    assert set(states(engine).values()) == {("sent", 1)}
    with engine.begin() as connection:
        assert not ledger.due(connection, "PACS", LATER)
        assert len(ledger.due(connection, "PACS", LATER + timedelta(seconds=5))) == 5


Spoil = Callable[[Dataset], object]


def put(said: Dataset, keyword: str, value: object) -> bool:
    setattr(said, keyword, value)
    return True


def no_item(keyword: str) -> Spoil:
    return lambda said: put(said, keyword, Items([]))


def without(keyword: str) -> Spoil:
    return lambda said: [item.pop(keyword, None) for name in SEQUENCES for item in said.get(name) or ()]


def naming(keyword: str, uid: str, which: slice = slice(None)) -> Spoil:
    return lambda said: [put(item, keyword, uid) for item in list(said.ReferencedSOPSequence)[which]]


def on(transaction: str) -> Spoil:
    return lambda said: put(said, "TransactionUID", transaction)


def as_it_is(_: Dataset) -> None:
    return None


SEQUENCES = ("ReferencedSOPSequence", "FailedSOPSequence")
MR = "1.2.840.10008.5.1.4.1.1.4"
KEPT, BOTH, FAILED = report(UIDS, {}), report(UIDS[:3], dict.fromkeys(UIDS[3:], 0x0112)), report([], {UIDS[0]: 0x0112})

UNMEANT: dict[str, tuple[int | None, Dataset, Spoil, int]] = {
    "no event type": (None, KEPT, as_it_is, 0x0113),
    **{f"event type {kind}": (kind, KEPT, as_it_is, 0x0113) for kind in (0, 3, 0xFFFF)},
    "all kept, though some failed": (1, BOTH, as_it_is, 0x0115),
    "some failed, and none is named": (2, KEPT, as_it_is, 0x0115),
    "some failed, and no item": (2, KEPT, no_item("FailedSOPSequence"), 0x0115),
    "all kept, and no item": (1, KEPT, no_item("ReferencedSOPSequence"), 0x0115),
    "all kept, and failed ones alone": (1, FAILED, as_it_is, 0x0115),
    "all kept, and no sequence": (1, KEPT, lambda said: said.pop("ReferencedSOPSequence"), 0x0115),
    "some failed, and no sequence": (2, FAILED, lambda said: said.pop("FailedSOPSequence"), 0x0115),
    "nothing at all": (1, KEPT, lambda said: [said.pop(one) for one in list(said.keys())], 0x0115),
    "another transaction": (1, KEPT, on("2.25.8"), 0x0115),
    "an empty transaction": (1, KEPT, on(""), 0x0115),
    "a space as transaction": (1, KEPT, on(" "), 0x0115),
    "two transactions": (1, KEPT, on("2.25.7\\2.25.8"), 0x0115),
    "no transaction": (1, KEPT, lambda said: said.pop("TransactionUID"), 0x0115),
    "no classes": (1, KEPT, without("ReferencedSOPClassUID"), 0x0115),
    "no instances": (1, KEPT, without("ReferencedSOPInstanceUID"), 0x0115),
    "no classes of what failed too": (2, BOTH, without("ReferencedSOPClassUID"), 0x0115),
    "an empty class": (1, KEPT, naming("ReferencedSOPClassUID", "", slice(1)), 0x0115),
    "an empty instance": (1, KEPT, naming("ReferencedSOPInstanceUID", "", slice(1)), 0x0115),
    "two classes in one": (1, KEPT, naming("ReferencedSOPClassUID", f"{MR}\\{MR}"), 0x0115),
    "other instances": (1, KEPT, naming("ReferencedSOPInstanceUID", "1.2.3"), 0x0112),
    "another class": (1, KEPT, naming("ReferencedSOPClassUID", MR), 0x0119),
    "another class of one": (1, KEPT, naming("ReferencedSOPClassUID", MR, slice(1)), 0x0119),
    "a class cut short": (1, KEPT, naming("ReferencedSOPClassUID", MR[:-2]), 0x0119),
    "another class beside failed ones": (2, BOTH, naming("ReferencedSOPClassUID", MR), 0x0119),
}
"""Reports on all of our objects that can't be meant, and what they are answered with."""


@pytest.mark.parametrize("kind", UNMEANT)
def test_a_report_that_cannot_be_meant_is_refused_and_believed_in_nothing(
    engine: Engine, tmp_path: Path, kind: str
) -> None:
    """And a right one after it is."""
    event_type, said, spoil, status = UNMEANT[kind]
    information = deepcopy(said)
    spoil(information)
    ask(engine, tmp_path)
    with pytest.raises(ReportRefused, match=r"^(its?|an item) ") as refused:
        take_report(engine, read_report(event_type, information), LATER)
    assert refused.value.status == status
    assert set(states(engine).values()) == {("sent", 1)}
    take(engine, report(UIDS, {}))
    assert set(states(engine).values()) == {("confirmed", 1)}


def test_of_a_report_that_names_others_too_what_it_says_of_ours_counts(engine: Engine, tmp_path: Path) -> None:
    """Some were asked about in another transaction since."""
    ask(engine, tmp_path)
    take(engine, report([*UIDS[:2], "1.2.3"], {"1.2.4": 0x0112}))
    assert Counter(states(engine).values()) == {("confirmed", 1): 2, ("sent", 1): 3}


def test_a_peer_that_has_another_class_may_name_that_one(engine: Engine, tmp_path: Path) -> None:
    ask(engine, tmp_path)
    information = report(UIDS[:4], {UIDS[4]: 0x0119})
    information.FailedSOPSequence[0].ReferencedSOPClassUID = MR
    take(engine, information)
    assert Counter(states(engine).values()) == {("confirmed", 1): 4, ("failed", 1): 1}


OURS = (StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


@pytest.mark.parametrize(
    ("affected", "event_type", "information", "status"),
    [
        (OURS, 1, KEPT, 0x0000),
        (OURS, 2, BOTH, 0x0000),
        (OURS, 3, KEPT, 0x0113),
        (OURS, 1, None, 0x0115),
        (OURS, 1, BOTH, 0x0115),
        ((OURS[0], UID("1.2.3")), 1, KEPT, 0x0112),
        ((ModalityPerformedProcedureStepNotification, OURS[1]), 1, KEPT, 0x0118),
    ],
)
def test_a_peer_is_told_by_a_status_whether_its_report_is_believed(
    caplog: pytest.LogCaptureFixture,
    affected: tuple[UID, UID],
    event_type: int,
    information: Dataset | None,
    status: int,
) -> None:
    """Over the network."""
    taken: list[PeerReport] = []

    def hear(event: Event) -> tuple[int, None]:
        return hear_report(event, taken.append)

    node, peer = AE(), AE(ae_title="PACS")
    node.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
    peer.add_requested_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)
    association = peer.associate(*server.server_address)
    try:
        answer, _ = association.send_n_event_report(
            information, event_type, *affected, meta_uid=StorageCommitmentPushModel
        )
    finally:
        association.abort()
        server.shutdown()
    assert (answer.Status, len(taken)) == (status, int(status == 0))
    told = [line for line in caplog.messages if line.startswith("from PACS@127.0.0.1: ")]
    assert [f"status 0x{status:04X}" in line for line in told] == [True] * (status != 0)


def test_a_report_that_comes_twice_or_is_taken_back_changes_nothing_more(engine: Engine, tmp_path: Path) -> None:
    ask(engine, tmp_path)
    take(engine, report(UIDS, {}))
    for information in (report(UIDS, {}), report([], dict.fromkeys(UIDS, 0x0112))):
        with pytest.raises(ReportRefused, match="none that waits for a report"):
            take(engine, information)
    assert set(states(engine).values()) == {("confirmed", 1)}


@pytest.mark.parametrize("asked_at", [NOW + timedelta(seconds=1), LATER], ids=["in doubt", "no doubt"])
@pytest.mark.parametrize("reason", [0x0112, 0x0110, 0x0119, 0xA700])
def test_the_first_answer_of_a_transaction_counts_and_a_refusal_leaves_no_status_on_what_is_confirmed(
    engine: Engine, tmp_path: Path, reason: int, asked_at: datetime
) -> None:
    ask(engine, tmp_path, asked_at)
    take(engine, report(UIDS, dict.fromkeys(UIDS, reason)))
    with pytest.raises(ReportRefused, match="none that waits for a report"):
        take(engine, report(UIDS, {}))
    assert "confirmed" not in {state for state, _ in states(engine).values()}
    with engine.begin() as connection:
        ledger.resend(connection)
        for entry in ledger.due(connection, "PACS", LATER + timedelta(days=1)):
            ledger.mark_asked(connection, entry, "2.25.8", now=LATER, until=LATER)
    take(engine, report(UIDS, {}, "2.25.8"))
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
        take(engine, contradictory(said))
        found = states(engine)
        assert {found[uid] for uid in said} == {("sent" if answer == "stored" else "waiting", 1)}
        ask_again(engine, said)
        first, *others = said
        take(engine, report([first], dict.fromkeys(others, 0x0112), "2.25.8"))
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
    take(engine, report(UIDS, {}))
    assert set(states(engine).values()) == {("confirmed", 1)}


def contradict(engine: Engine, said: dict[str, tuple[int | None, ...]], transaction: str) -> tuple[float | None, str]:
    """All are asked about, and the report contradicts itself; gives for how long they wait then, and as what."""
    ask_again(engine, said, transaction)
    information = contradictory(said)
    information.TransactionUID = transaction
    take(engine, information)
    with engine.connect() as connection:
        ((until, state),) = connection.execute(select(DELIVERY.c.not_before, DELIVERY.c.state).distinct())
    return (until - LATER).total_seconds() if until else None, state


@settings(max_examples=30, deadline=None)
@given(
    kept=st.lists(st.sampled_from([*UIDS, "9.9"]), max_size=8),
    failed=st.dictionaries(st.sampled_from([*UIDS, "9.9"]), st.integers(0, 0xFFFF), max_size=6),
)
def test_only_what_a_report_keeps_and_does_not_fail_is_confirmed(
    engine: Engine, tmp_path: Path, kept: list[str], failed: dict[str, int]
) -> None:
    ask(engine, tmp_path)
    with suppress(ReportRefused):  # none of ours, or nothing
        take(engine, report(kept, failed))
    confirmed = {uid for uid, (state, _) in states(engine).items() if state == DeliveryState.CONFIRMED}
    assert confirmed == (set(kept) - set(failed)) & set(UIDS)
