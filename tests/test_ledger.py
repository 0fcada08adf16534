"""The delivery ledger: what goes where, what may be sent, and that nothing that is over changes any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, select

from carina.config import Destination, DicomDestination, FolderDestination, ObjectKind
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.callers import destinations_of_caller
from carina.deliver.identity import identity_of, kind_of
from carina.deliver.ledger import DeliveryState, Entry, Trouble
from carina.deliver.proof import Proof
from carina.deliver.routes import routes
from delivery_objects import NOW, add_job, new_ledger, write_objects

SHARE = FolderDestination(path="share")
LATER = NOW + timedelta(minutes=5)
STORED = Answer(outcome=Outcome.STORED, status=0)
BUSY = Trouble(code="delivery.refused", words="status 0xA700, out of resources", status=0xA700)


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_objects(tmp_path / "runs" / "1" / "dicom")


def enter(engine: Engine, files: list[Path], tmp_path: Path, **destinations: Destination) -> int:
    """A new job with these objects; gives its id."""
    with engine.begin() as connection:
        job = add_job(connection)
        ledger.enter(connection, job, destinations, files, folder=tmp_path, now=NOW)
    return job


def test_each_destination_gets_what_it_takes(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    pdf = FolderDestination(path="pdf", takes=(ObjectKind.PDF,))
    rest = FolderDestination(path="rest", takes=(ObjectKind.SEG, ObjectKind.SR))
    job = enter(engine, files, tmp_path, all=SHARE, pdf=pdf, rest=rest)
    with engine.begin() as connection:
        found = {name: by_state[DeliveryState.WAITING] for name, by_state in ledger.counts(connection).items()}
        paths = {entry.path for entry in ledger.due(connection, "pdf", NOW)}
        again = ledger.enter(connection, job, {"all": SHARE, "pdf": pdf}, files, folder=tmp_path, now=NOW)
    assert found == {"all": 5, "pdf": 2, "rest": 3}
    assert paths == {"runs/1/dicom/object3.dcm", "runs/1/dicom/object4.dcm"}
    assert again == 0


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", ObjectKind.SEG),
        ("1.2.840.10008.5.1.4.1.1.66.7", ObjectKind.SEG),
        ("1.2.840.10008.5.1.4.1.1.104.1", ObjectKind.PDF),
        ("1.2.840.10008.5.1.4.1.1.88.22", ObjectKind.SR),
        ("1.2.840.10008.5.1.4.1.1.88.33", ObjectKind.SR),
        ("1.2.840.10008.5.1.4.1.1.2", ObjectKind.OTHER),
        ("", ObjectKind.OTHER),
    ],
)
def test_kinds_of_object(sop_class: str, kind: ObjectKind) -> None:
    assert kind_of(sop_class) is kind


def test_a_file_says_what_it_is(files: list[Path]) -> None:
    identity = identity_of(files[1])
    assert (identity.study_uid, identity.series_uid, identity.sop_instance_uid) == ("1.2.3", "1.2.3.8.2", "1.2.3.9.2")


def test_once_begun_the_peer_is_asked_by_every_job(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    enter(engine, files, tmp_path, share=SHARE)
    enter(engine, files, tmp_path, share=SHARE, other=SHARE)
    with engine.begin() as connection:
        first = ledger.due(connection, "share", NOW)
        assert len(first) == 5 and not any(entry.ask or entry.attempts for entry in first)
        ledger.begin_sending(connection, first[0], NOW)
    enter(engine, files, tmp_path, share=SHARE)
    with engine.connect() as connection:
        rows = connection.execute(select(DELIVERY).where(DELIVERY.c.sop_instance_uid == "1.2.3.9.1")).all()
        asked = {(row.job_id, row.destination): (row.ask, row.attempts) for row in rows}
    assert asked == {(1, "share"): (1, 1), (2, "share"): (1, 0), (2, "other"): (0, 0), (3, "share"): (1, 0)}


def test_what_another_sender_has_begun_is_not_begun_again(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    enter(engine, files, tmp_path, archive=SHARE)
    with engine.begin() as connection:
        first = ledger.due(connection, "archive", NOW)[0]
        assert ledger.begin_sending(connection, first, NOW)
        assert not ledger.begin_sending(connection, first, NOW)
        ledger.mark_absent(connection, [first.id], NOW)
        assert not ledger.begin_sending(connection, first, NOW), "it was read before the other's attempt"
        assert ledger.begin_sending(connection, ledger.due(connection, "archive", NOW)[0], NOW)


def test_what_is_entered_while_it_is_being_begun_is_asked_about(
    engine: Engine, files: list[Path], tmp_path: Path
) -> None:
    enter(engine, files, tmp_path, archive=SHARE)
    second = Thread(target=enter, args=(engine, files, tmp_path), kwargs={"archive": SHARE})
    with engine.begin() as connection:
        for entry in ledger.due(connection, "archive", NOW):
            ledger.begin_sending(connection, entry, NOW)
        second.start()
        second.join(0.5)  # it must wait for its turn
    second.join()
    with engine.connect() as connection:
        assert set(connection.execute(select(DELIVERY.c.ask)).scalars()) == {1}


def test_a_doubt_is_the_object_s_and_every_job_has_it(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        enter(engine, files[:1], tmp_path, archive=SHARE)
    later = NOW + timedelta(hours=1)
    with engine.begin() as connection:
        first = ledger.due(connection, "archive", NOW)[0]
        ledger.begin_sending(connection, first, NOW)
        ledger.mark_sent(connection, first, STORED, now=NOW, doubt_until=later)
        ledger.put_off(connection, [first.id], BUSY, later)
        (other,) = ledger.due(connection, "archive", NOW)
    assert other.id != first.id and other.ask and other.is_in_doubt(NOW)


def test_what_waits_is_left_alone_until_its_time(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    enter(engine, files, tmp_path, share=SHARE)
    with engine.begin() as connection:
        first, *others = ledger.due(connection, "share", NOW)
        ledger.mark_refused(connection, [first.id], BUSY, LATER)
        row = connection.execute(select(DELIVERY).where(DELIVERY.c.id == first.id)).one()
        assert (row.status, row.error_code, row.error) == (0xA700, "delivery.refused", BUSY.words)
        assert ledger.due(connection, "share", NOW) == tuple(others)
        assert ledger.due(connection, "share", LATER) == (first, *others)


def test_what_waits_for_longer_than_it_can_have_been_told_to_is_due(
    engine: Engine, files: list[Path], tmp_path: Path
) -> None:
    enter(engine, files[:1], tmp_path, share=SHARE)
    longest = timedelta(minutes=5)
    with engine.begin() as connection:
        (entry,) = ledger.due(connection, "share", NOW)
        ledger.put_off(connection, [entry.id], BUSY, LATER)
        assert ledger.due(connection, "share", NOW, longest=longest) == ()
        assert ledger.due(connection, "share", NOW - timedelta(hours=5), longest=longest) == (entry,)


def test_a_delivery_is_complete_when_all_is_confirmed(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    job = enter(engine, files, tmp_path, share=SHARE)
    with engine.begin() as connection:
        for entry in ledger.due(connection, "share", NOW):
            assert not ledger.is_delivered(connection, job)
            ledger.mark_sent(connection, entry, STORED, now=NOW)
            assert not ledger.is_delivered(connection, job)
            ledger.mark_confirmed(connection, [entry.id], Proof.QUERY, LATER)
        assert ledger.is_delivered(connection, job)
        assert ledger.due(connection, "share", LATER) == ()


def test_what_failed_can_be_sent_again_by_hand_and_is_asked_for_first(
    engine: Engine, files: list[Path], tmp_path: Path
) -> None:
    job = enter(engine, files, tmp_path, share=SHARE, other=SHARE)
    with engine.begin() as connection:
        for name in ("share", "other"):
            ids = [entry.id for entry in ledger.due(connection, name, NOW)]
            ledger.mark_failed(connection, ids, Trouble(code="delivery.refused", words="no", status=0x0122))
        assert ledger.counts(connection, job_id=job)["share"][DeliveryState.FAILED] == 5
        assert ledger.resend(connection, destination="share") == 5
        assert ledger.resend(connection, job_id=job + 1) == 0
        assert all(entry.ask for entry in ledger.due(connection, "share", NOW))
        assert ledger.due(connection, "other", NOW) == ()


def test_what_is_sent_and_not_confirmed_is_asked_for_now(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    enter(engine, files, tmp_path, share=SHARE)
    with engine.begin() as connection:
        for entry in ledger.due(connection, "share", NOW):
            ledger.mark_sent(connection, entry, STORED, now=NOW)
            ledger.mark_asked(connection, entry, "1.2.3", now=NOW, until=LATER)
        assert ledger.due(connection, "share", NOW) == ()
        assert [ledger.resend(connection, destination=name) for name in ("other", "share", "share")] == [0, 5, 0]
        assert {entry.state for entry in ledger.due(connection, "share", NOW)} == {DeliveryState.SENT}


STEPS: dict[str, Callable[[Connection, Entry], object]] = {
    "begin": lambda connection, entry: ledger.begin_sending(connection, entry, NOW),
    "sent": lambda connection, entry: ledger.mark_sent(connection, entry, STORED, now=NOW),
    "confirm": lambda connection, entry: ledger.mark_confirmed(connection, [entry.id], Proof.QUERY, NOW),
    "fail": lambda connection, entry: ledger.mark_failed(connection, [entry.id], BUSY),
    "absent": lambda connection, entry: ledger.mark_absent(connection, [entry.id], NOW),
    "refuse": lambda connection, entry: ledger.mark_refused(connection, [entry.id], BUSY, LATER),
    "resume": lambda connection, entry: ledger.extend_doubt(connection, "share", LATER),
    "put off": lambda connection, entry: ledger.put_off(connection, [entry.id], BUSY, LATER),
    "ask": lambda connection, entry: ledger.mark_asked(connection, entry, "2.25.1", now=NOW, until=LATER),
    "note": lambda connection, entry: ledger.add_note(connection, [entry.id], "unasked."),
}


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_what_is_over_stays_as_it_is(steps: list[str], engine: Engine, files: list[Path], tmp_path: Path) -> None:
    """Whatever a thread that comes late has to say: a confirmed row is confirmed, a failed one waits for a person."""
    with engine.begin() as connection:
        connection.execute(delete(DELIVERY))
    enter(engine, files[:1], tmp_path, share=SHARE)
    over = None
    with engine.begin() as connection:
        (entry,) = ledger.due(connection, "share", NOW)
        for name in steps:
            STEPS[name](connection, entry)
            row = connection.execute(select(DELIVERY.c.state, DELIVERY.c.error, DELIVERY.c.confirmed_by)).one()
            assert over in (None, row)
            over = row if row.state in (DeliveryState.CONFIRMED, DeliveryState.FAILED) else None
            assert (row.state == DeliveryState.CONFIRMED) == bool(row.confirmed_by)


PACS = DicomDestination(host="pacs", port=104, ae_title="ARCHIVE")
SCANNER = DicomDestination(host="scanner", port=104, ae_title="CT1")


def test_results_go_where_the_source_says_and_back_to_the_sender() -> None:
    known: dict[str, Destination] = {"archive": PACS, "scanner": SCANNER, "share": SHARE}
    assert routes(("archive", "share"), known, "CT1@10.0.0.7") == (("archive", "share"), "")
    assert routes(("archive", "sender"), known, "CT1@10.0.0.7") == (("archive", "scanner"), "")
    assert routes(("sender", "archive", "later"), known, "ARCHIVE@10.0.0.8") == (("archive", "later"), "")


WHY = [
    Trouble(code="delivery.refused", words="A900H, Doe^Jane", status=0xA900),
    Trouble(code="delivery.damaged", words="x"),
]
WHY += [Trouble(code="delivery.refused", words="Doe^Jane", status=422)]


@pytest.mark.parametrize(("why", "told"), zip(WHY, ("refused, A900H", "damaged", "refused, 422"), strict=True))
def test_what_failed_for_good_is_told_in_one_line_without_a_patient(
    engine: Engine, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, why: Trouble, told: str
) -> None:
    job = enter(engine, files[:1], tmp_path, share=SHARE)
    with engine.begin() as connection:
        (entry,) = ledger.due(connection, "share", NOW)
        ledger.mark_failed(connection, [entry.id], why)
    todo = f"carina deliveries list --job {job} says why; mend that, then carina deliveries resend --job {job}."
    assert caplog.messages == [f"job {job}: an object can't be delivered to share [delivery.{told}]: {todo}"]


TWINS: dict[str, Destination] = {
    "one": DicomDestination(host="192.0.2.1", port=104, ae_title="TWIN"),
    "other": DicomDestination(host="192.0.2.2", port=104, ae_title="TWIN"),
    "again": DicomDestination(host="192.0.2.2", port=104, ae_title="TWIN", takes=(ObjectKind.SEG,)),
    "here": DicomDestination(host="localhost", port=104, ae_title="TWIN"),
    "port": DicomDestination(host="192.0.2.1", port=105, ae_title="TWIN"),
}
CALLS: list[tuple[tuple[str, ...], str, tuple[str, ...], str]] = [
    (("one", "other", "again"), "192.0.2.1", ("one",), ""),
    (("one", "other", "again"), "::ffff:192.0.2.2", ("other", "again"), ""),
    (("one", "here"), "127.0.0.1", ("here",), ""),
    (("other", "again"), "198.51.100.7", ("other", "again"), ""),
    (
        ("one", "other"),
        "198.51.100.7",
        (),
        "one and other have this ae_title, and none of them the address 198.51.100.7",
    ),
    (("one", "other"), "", (), "one and other have this ae_title, and none of them the address (none)"),
    (("one", "port"), "192.0.2.1", (), "one and port have this ae_title at one address: which of them it is can't be"),
]


@pytest.mark.parametrize(("known", "address", "names", "why"), CALLS)
def test_who_shares_an_ae_title_is_told_by_its_address(
    known: tuple[str, ...], address: str, names: tuple[str, ...], why: str
) -> None:
    there = {name: TWINS[name] for name in known}
    found, said = destinations_of_caller(there, "TWIN", address)
    assert found == names
    assert said.startswith(why) and bool(said) == bool(why)
    back, lost = routes(("sender",), there, f"TWIN@{address}")
    assert back == names
    assert bool(lost) == bool(why) and why in lost


@pytest.mark.parametrize("sender", ["folder", "192.0.2.1", "pacs.example:8042", ""])
def test_what_no_title_sent_goes_back_to_nobody_whatever_titles_there_are(sender: str) -> None:
    """What comes by a watched folder or DICOMweb is said with its own reason, and no title is taken for it."""
    peer = DicomDestination(host="192.0.2.1", port=104, ae_title=sender[:16] or "X")
    names, said = routes(("sender", "share", "share"), {"share": SHARE, "peer": peer}, sender)
    assert names == ("share",)
    assert said.startswith("results can't go back to the sender: what comes by a watched folder or DICOMweb has no AE")


def test_a_sender_without_a_destination_is_said_in_one_line() -> None:
    names, said = routes(("sender", "share"), {"share": SHARE}, "CT9@10.0.0.7")
    assert names == ("share",)
    assert said.startswith("results can't go back to the sender CT9: no destination has this ae_title; add one")
