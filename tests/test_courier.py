"""Delivery round by round to a PACS that misbehaves: the ledger is right at every moment, all arrives in the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Row, select

from carina.config import Destination, DicomDestination, FolderDestination
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import Answer
from carina.deliver.channels import DicomChannel, channel_to
from carina.deliver.courier import Courier
from carina.deliver.ledger import DeliveryState
from carina.deliver.pace import Pace
from carina.deliver.store_scu import StoreSession
from carina.testing.difficult_pacs import DifficultPacs, Mood, difficult_pacs
from delivery_objects import NOW, add_job, eventually, new_ledger, write_objects

PACE = Pace(first_s=5, longest_s=60, idle_s=1, report_s=5)
MOST_ROUNDS = 60


class Clock:
    """A clock that stands until it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Node:
    """A node's folder, ledger and courier to one destination."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = new_ledger(folder)
        self.clock = Clock()
        self.files = write_objects(folder / "runs" / "1")

    def enter(self, destination: Destination, files: list[Path] | None = None) -> int:
        with self.engine.begin() as connection:
            job = add_job(connection)
            ledger.enter(connection, job, {"PACS": destination}, files or self.files, folder=self.folder, now=NOW)
        return job

    def courier(self, destination: Destination) -> Courier:
        return Courier(
            engine=self.engine,
            folder=self.folder,
            name="PACS",
            destination=destination,
            channel=channel_to("PACS", destination),
            pace=PACE,
            clock=self.clock,
        )

    def rows(self) -> list[Row[tuple[object, ...]]]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(DELIVERY).order_by(DELIVERY.c.id)))

    def states(self) -> list[str]:
        return [row.state for row in self.rows()]

    def deliver(self, courier: Courier) -> None:
        """Rounds, with the time put forward where nothing is due, until nothing is under way."""
        for _ in range(MOST_ROUNDS):
            if not courier.round():
                self.clock.now += timedelta(seconds=PACE.first_s)
            if not set(self.states()) & set(ledger.UNDER_WAY):
                return
        raise AssertionError(f"still under way: {[(row.state, row.error) for row in self.rows()]}")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.engine.dispose()


def to(pacs: DifficultPacs, **more: object) -> DicomDestination:
    fields = {"host": "127.0.0.1", "port": pacs.port, "ae_title": pacs.ae_title, "timeout_s": 60.0, "confirm_s": 20.0}
    return DicomDestination(**{**fields, **more})  # type: ignore[arg-type]


def all_arrived_once(node: Node, pacs: DifficultPacs) -> bool:
    uids = {row.sop_instance_uid for row in node.rows()}
    return set(pacs.stored) == uids and not pacs.again.total() and set(node.states()) == {DeliveryState.CONFIRMED}


def test_objects_are_sent_once_and_confirmed_by_query(node: Node) -> None:
    with difficult_pacs() as pacs:
        job = node.enter(to(pacs))
        courier = node.courier(to(pacs))
        assert courier.round() and node.states() == ["sent"] * 5
        assert courier.round() and not courier.round()
        assert all_arrived_once(node, pacs)
        assert {(row.confirmed_by, row.status, row.attempts, row.error) for row in node.rows()} == {("query", 0, 1, "")}
        with node.engine.begin() as connection:
            assert ledger.is_delivered(connection, job)


def test_the_same_objects_of_a_second_run_are_confirmed_and_not_sent(node: Node) -> None:
    with difficult_pacs() as pacs:
        for _ in range(2):  # one run again before anything was sent, one after it
            node.enter(to(pacs))
            node.enter(to(pacs))
            node.deliver(node.courier(to(pacs)))
        assert pacs.requests.total() == 5 and all_arrived_once(node, pacs)
        assert len(node.rows()) == 20


@pytest.mark.parametrize("mood", [Mood.FULL, Mood.LYING, Mood.FORGETFUL, Mood.ABORTING, Mood.SLOW, Mood.COERCING])
def test_whatever_the_peer_does_all_arrives_once_it_is_well(node: Node, mood: Mood) -> None:
    with difficult_pacs(mood) as pacs:
        destination = to(pacs, timeout_s=0.5 if mood is Mood.SLOW else 60.0)
        node.enter(destination)
        courier = node.courier(destination)
        for _ in range(8):
            courier.round()
            for row in node.rows():  # at every moment: what is called confirmed is there, what is there is asked about
                assert row.state != DeliveryState.CONFIRMED or row.sop_instance_uid in pacs.stored
                assert row.sop_instance_uid not in pacs.stored or (row.ask and row.attempts)
            node.clock.now += timedelta(seconds=3)
        pacs.mood = Mood.FINE
        node.deliver(courier)
        assert all_arrived_once(node, pacs)


@pytest.mark.parametrize("commitment", [False, True])
def test_what_is_still_on_its_way_through_the_peer_is_sent_by_no_job(node: Node, commitment: bool) -> None:  # noqa: FBT001
    """The answer is late, and so is the object: that the peer says not to have it means nothing yet."""
    with difficult_pacs(Mood.LATE, commits=commitment) as pacs:
        pacs.slow_s = 60.0
        destination = to(pacs, timeout_s=0.5, commitment=commitment)
        node.enter(destination, node.files[:1])
        node.enter(destination, node.files[:1])
        courier = node.courier(destination)
        courier.round()
        node.enter(destination, node.files[:1])
        for _ in range(15):
            courier.round()
            node.clock.now += timedelta(seconds=1)
        assert pacs.requests.total() == 1 and node.states() == ["waiting"] * 3
        pacs.go_on.set()
        eventually(lambda: bool(pacs.stored))
        node.deliver(courier)
        assert pacs.requests.total() == 1 and all_arrived_once(node, pacs)


def test_an_answer_is_as_old_as_the_question(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes longer to answer than an object may be on its way said "no" while it was on its way."""
    real = DicomChannel.held

    def slowly(channel: DicomChannel, files: list[Path]) -> frozenset[str] | None:
        held = real(channel, files)
        node.clock.now += timedelta(seconds=30)
        return held

    monkeypatch.setattr(DicomChannel, "held", slowly)
    with difficult_pacs(Mood.LATE) as pacs:
        pacs.slow_s = 60.0
        destination = to(pacs, timeout_s=0.5)
        node.enter(destination, node.files[:1])
        courier = node.courier(destination)
        courier.round()
        node.clock.now += timedelta(seconds=PACE.first_s)
        assert courier.round()
        pacs.go_on.set()
        eventually(lambda: bool(pacs.stored))
        node.deliver(courier)
        assert pacs.requests.total() == 1 and all_arrived_once(node, pacs)


@pytest.mark.parametrize("way", ["down", "refusing"])
def test_a_peer_that_is_not_there_is_waited_for(node: Node, way: str) -> None:
    with difficult_pacs() as pacs:
        pacs.down()
        if way == "refusing":
            pacs.up()
            pacs.refuse(everybody=True)
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        waits = []
        for _ in range(6):
            assert courier.round() and not courier.round()
            assert courier.rests_until is not None
            waits.append((courier.rests_until - node.clock.now).total_seconds())
            node.clock.now = courier.rests_until
        assert waits == [5, 10, 20, 40, 60, 60]
        words = "refused the association" if way == "refusing" else "nothing answers there"
        assert {(row.state, row.attempts, row.error_code) for row in node.rows()} == {
            ("waiting", 0, "delivery.unreachable")
        }
        assert all(words in row.error for row in node.rows())
        pacs.down()
        pacs.up()
        node.deliver(courier)
        assert all_arrived_once(node, pacs) and pacs.requests.total() == 5


def test_where_the_clock_is_set_back_nothing_waits_for_the_length_of_the_step(node: Node) -> None:
    with difficult_pacs(Mood.ABORTING) as pacs:
        node.enter(to(pacs))
        couriers = [node.courier(to(pacs)) for _ in range(2)]
        assert couriers[0].round() and {row.doubt_until is None for row in node.rows()} == {True, False}
        pacs.down()
        node.clock.now += timedelta(minutes=10)
        assert couriers[0].round() and couriers[0].rests_until is not None
        node.clock.now, pacs.mood = node.clock.now - timedelta(hours=5), Mood.FINE
        pacs.up()
        assert [courier.round() for courier in couriers] == [True] * 2  # one that rests, one of a new process
        node.deliver(couriers[1])
        assert all_arrived_once(node, pacs) and node.clock.now < NOW - timedelta(hours=4)


def test_what_waits_is_tried_now_when_told(node: Node) -> None:
    with difficult_pacs() as pacs:
        pacs.down()
        node.enter(to(pacs))
        assert (courier := node.courier(to(pacs))).round() and not courier.round()
        pacs.up()
        with node.engine.begin() as connection:
            assert [ledger.resend(connection, destination="PACS") for _ in range(2)] == [5, 0]
        assert [courier.round() for _ in range(3)] == [True] * 3 and all_arrived_once(node, pacs)


def test_a_full_peer_keeps_its_status_in_the_row(node: Node) -> None:
    with difficult_pacs(Mood.FULL) as pacs:
        node.enter(to(pacs))
        node.courier(to(pacs)).round()
        rows = node.rows()
    assert [row.state for row in rows] == ["waiting", "sent", "waiting", "sent", "waiting"]
    assert [row.status for row in rows] == [0xA700, 0, 0xA700, 0, 0xA700]
    assert rows[0].error == "status 0xA700, out of resources" and rows[0].error_code == "delivery.refused"
    assert rows[0].not_before.replace(tzinfo=NOW.tzinfo) == NOW + timedelta(seconds=5)


def test_what_a_peer_never_takes_fails_at_once_and_can_be_sent_by_hand_later(node: Node) -> None:
    with difficult_pacs(Mood.PICKY) as pacs:
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        node.deliver(courier)
        assert {(row.state, row.status, row.attempts) for row in node.rows()} == {("failed", 0x0122, 1)}
        pacs.mood = Mood.FINE
        with node.engine.begin() as connection:
            assert ledger.resend(connection, destination="PACS") == 5
        node.deliver(courier)
        assert all_arrived_once(node, pacs)


def test_a_warning_counts_as_stored_and_is_kept(node: Node) -> None:
    with difficult_pacs(Mood.COERCING) as pacs:
        node.enter(to(pacs))
        node.deliver(node.courier(to(pacs)))
        assert all_arrived_once(node, pacs)
    assert {(row.status, row.note) for row in node.rows()} == {(0xB000, "status 0xB000, elements coerced")}


def test_a_lie_is_found_out_after_the_time_that_the_peer_is_given(node: Node) -> None:
    with difficult_pacs(Mood.LYING) as pacs:
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        courier.round()
        while "sent" in node.states():
            assert {(row.attempts, row.confirmed_by) for row in node.rows()} == {(1, "")}
            node.clock.now += timedelta(seconds=1)
            courier.round()
        assert timedelta(seconds=20) <= node.clock.now - NOW <= timedelta(seconds=20 + PACE.first_s)
        assert {(row.state, row.error_code) for row in node.rows()} == {("waiting", "delivery.lost")}
        assert pacs.requests.total() == 5


@pytest.mark.parametrize("mood", [Mood.FINE, Mood.FORGETFUL])
def test_a_peer_that_answers_no_queries_is_believed_and_the_row_says_so(node: Node, mood: Mood) -> None:
    pacs = DifficultPacs(mood=mood, answers_queries=False)
    pacs.up()
    try:
        node.enter(to(pacs), node.files[:1])
        courier = node.courier(to(pacs))
        courier.round()
        pacs.mood = Mood.FINE
        node.deliver(courier)
    finally:
        pacs.down()
    row = node.rows()[0]
    assert (row.state, row.confirmed_by) == ("confirmed", "status")
    assert ("sent again unasked" in row.note) == (mood is Mood.FORGETFUL)
    assert "answers no queries): the status of its answer counts" in row.note


@pytest.mark.parametrize("mood", [Mood.FINE, Mood.LYING, Mood.FORGETFUL, Mood.FULL])
def test_storage_commitment_on_the_same_association(node: Node, mood: Mood) -> None:
    with difficult_pacs(mood, commits=True) as pacs:
        destination = to(pacs, commitment=True)
        pacs.answers_queries = False
        node.enter(destination)
        courier = node.courier(destination)
        for _ in range(3):
            courier.round()
            assert all(row.state != "confirmed" or row.sop_instance_uid in pacs.stored for row in node.rows())
        pacs.mood = Mood.FINE
        node.deliver(courier)
        assert all_arrived_once(node, pacs)
    assert {row.confirmed_by for row in node.rows()} == {"commitment"}


def test_a_peer_without_commitment_is_asked_by_query(node: Node) -> None:
    with difficult_pacs() as pacs:
        node.enter(to(pacs, commitment=True))
        node.deliver(node.courier(to(pacs, commitment=True)))
        assert all_arrived_once(node, pacs)
    assert {(row.confirmed_by, row.transaction_uid) for row in node.rows()} == {("query", "")}


def test_what_sets_off_a_fault_of_ours_keeps_no_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StoreSession.store

    def store(session: StoreSession, file: Path) -> Answer:
        if file.name == "object2.dcm":
            raise ZeroDivisionError
        return real(session, file)

    monkeypatch.setattr(StoreSession, "store", store)
    with difficult_pacs() as pacs:
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        courier.round()
        courier.round()
    assert node.states() == ["confirmed", "waiting", "confirmed", "confirmed", "confirmed"]
    assert "ZeroDivisionError" in node.rows()[1].error


def test_who_is_told_to_stop_begins_no_other_object(node: Node) -> None:
    with difficult_pacs() as pacs:
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        courier.is_stopping = lambda: pacs.requests.total() == 2
        courier.round()
    assert node.states() == ["sent", "sent", "waiting", "waiting", "waiting"]
    assert [row.ask for row in node.rows()] == [1, 1, 0, 0, 0]


def test_a_folder_gets_each_object_under_its_study_and_a_changed_copy_is_replaced(node: Node, tmp_path: Path) -> None:
    share = FolderDestination(path=str(tmp_path / "share"))
    node.enter(share)
    node.deliver(node.courier(share))
    copies = sorted((tmp_path / "share" / "1.2.3").iterdir())
    assert [path.name for path in copies] == [f"1.2.3.9.{number}.dcm" for number in range(1, 6)]
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in node.files]
    assert {row.confirmed_by for row in node.rows()} == {"digest"}
    times = [path.stat().st_mtime_ns for path in copies]
    copies[0].write_bytes(b"cut")
    node.enter(share)
    node.deliver(node.courier(share))
    assert copies[0].read_bytes() == node.files[0].read_bytes()
    assert [path.stat().st_mtime_ns for path in copies[1:]] == times[1:]


def test_an_object_whose_file_is_gone_or_cut_fails_by_name_and_stops_no_other(node: Node) -> None:
    with difficult_pacs() as pacs:
        node.enter(to(pacs))
        node.files[1].unlink()
        node.files[2].write_bytes(b"cut")
        node.deliver(node.courier(to(pacs)))
    assert node.states() == ["confirmed", "failed", "failed", "confirmed", "confirmed"]
    assert node.rows()[1].error == "runs/1/object2.dcm of the node can't be read (No such file or directory)."
    assert node.rows()[2].error == "runs/1/object3.dcm of the node can't be read (it is no DICOM file)."


def test_an_object_that_was_damaged_after_its_run_is_not_sent(node: Node) -> None:
    with difficult_pacs() as pacs:
        node.enter(to(pacs))
        spoilt = bytearray(node.files[1].read_bytes())
        spoilt[-100] ^= 1
        node.files[1].write_bytes(spoilt)
        node.deliver(node.courier(to(pacs)))
        assert pacs.requests.total() == len(pacs.stored) == 4
    assert node.states() == ["confirmed", "failed", "confirmed", "confirmed", "confirmed"]
    row = node.rows()[1]
    assert (row.error_code, row.attempts) == ("delivery.damaged", 0)
    assert row.error.startswith("runs/1/object2.dcm of the node was damaged or changed after its run: its SHA-256 is ")
    assert row.error.endswith("it is not sent. Look at the disk, and run the series again.")


def test_what_was_sent_whole_and_damaged_afterwards_is_confirmed(node: Node) -> None:
    with difficult_pacs() as pacs:
        node.enter(to(pacs))
        courier = node.courier(to(pacs))
        courier.round()
        node.files[1].write_bytes(node.files[1].read_bytes() + bytes(2))
        node.deliver(courier)
        assert all_arrived_once(node, pacs)
