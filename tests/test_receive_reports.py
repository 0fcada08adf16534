"""Reports on storage commitment: sent once whoever asked can be reached, for a bounded time and a bounded number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from pydicom import Dataset

from carina.config import DicomDestination
from carina.deliver.pace import Pace
from carina.errors import DeliveryFailed
from carina.receive import reports
from carina.receive.commitment import CommitmentRequest
from carina.receive.instance import NotAccepted
from carina.receive.reports import GIVEN_UP_H, REQUESTS_OWED, CommitmentReports
from received_files import new_store

Send = Callable[[str, DicomDestination, int, Dataset], int]


def request(transaction: str = "1.2.9", count: int = 1) -> CommitmentRequest:
    wanted = tuple(("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(count))
    return CommitmentRequest(transaction_uid=transaction, references=wanted, project="default")


def owing(folder: Path, send: Send, monkeypatch: pytest.MonkeyPatch) -> CommitmentReports:
    """Reports of a node with the destination CT1, sent by ``send``."""
    monkeypatch.setattr(reports, "_send", send)
    store = new_store(folder)
    settings = replace(store.settings, destinations={"ct": DicomDestination(host="h", port=1, ae_title="CT1")})
    return CommitmentReports(settings, store.engine, Pace(first_s=0.01, longest_s=0.02))


def paid() -> None:
    """Wait until nothing is owed any more."""
    for thread in threading.enumerate():
        if thread.name == "commitment":
            thread.join(60)
            assert not thread.is_alive()


def test_a_report_is_tried_until_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[int | Exception] = [DeliveryFailed("delivery.x", "it is away."), OSError(), 0x0110, 0x0213, 0]
    sent: list[str] = []

    def send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> int:
        sent.append(str(report.TransactionUID))
        answer = answers.pop(0) if answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer

    owed = owing(tmp_path, send, monkeypatch)
    owed.owe("CT1", request())
    paid()
    assert (sent, answers) == (["1.2.9"] * 5, [])
    owed.owe("CT1", request("1.2.10"))
    paid()
    assert sent[-1] == "1.2.10", "a thread that has ended is followed by another"
    told = [line.getMessage() for line in caplog.records]
    assert told == ["storage commitment: a report did not reach ct: it is away; it is tried for 24 hours."]


def test_what_is_refused_for_good_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []

    def refuse(name: str, *_: object) -> int:
        sent.append(name)
        return 0x0112

    owed = owing(tmp_path, refuse, monkeypatch)
    owed.owe("CT1", request())
    paid()
    assert len(sent) == 1
    assert "status 0x0112, no such object; it is not tried again" in caplog.text


def test_a_report_is_given_up_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    def away(name: str, *_: object) -> int:
        tries.append(name)
        raise DeliveryFailed("delivery.x", "it is away.")

    owed = owing(tmp_path, away, monkeypatch)
    owed.clock = lambda: len(tries) * GIVEN_UP_H * 3600 / 3
    owed.owe("CT1", request())
    paid()
    assert len(tries) == 3
    assert caplog.messages[-1].endswith("did not reach ct: it is away; it is not tried again.")


def test_more_than_may_be_under_way_is_refused_and_told_when_the_node_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = threading.Event()
    owed = owing(tmp_path, lambda *_: let_go.wait(60) and 0, monkeypatch)
    monkeypatch.setattr(reports, "INSTANCES_OWED", REQUESTS_OWED)
    owed.owe("CT1", request(count=REQUESTS_OWED + 1))
    with pytest.raises(NotAccepted, match="1 requests of CT1 for storage commitment wait") as refused:
        owed.owe("CT1", request())
    assert refused.value.status == 0x0213
    monkeypatch.setattr(reports, "INSTANCES_OWED", 10**6)
    for _ in range(REQUESTS_OWED - 1):
        owed.owe("CT1", request())
    with pytest.raises(NotAccepted, match="64 requests of CT1 for storage commitment wait"):
        owed.owe("CT1", request())
    owed.stop()
    assert "64 report(s) to ct are lost; it has to ask again" in caplog.text
    let_go.set()
    paid()


def test_who_is_no_destination_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAccepted, match="STRANGER asks for storage commitment and is no destination"):
        owing(tmp_path, lambda *_: 0, monkeypatch).owe("STRANGER", request())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_breaks_leaves_the_next_request_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> int:
        sent.append(str(report.TransactionUID))
        return {"1.2.10": 0}[sent[-1]]

    owed = owing(tmp_path, send, monkeypatch)
    owed.owe("CT1", request())
    paid()
    owed.owe("CT1", request("1.2.10"))
    paid()
    assert sent == ["1.2.9", "1.2.10"]
