"""Reports on storage commitment: sent once whoever asked can be reached, for a bounded time and a bounded number."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydicom import Dataset
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import OperationalError

from carina.config import DicomDestination
from carina.database import OWED_REPORT
from carina.deliver.pace import Pace
from carina.errors import DeliveryFailed
from carina.receive import reports
from carina.receive.commitment import CommitmentRequest
from carina.receive.instance import NotAccepted
from carina.receive.owed_reports import GIVEN_UP_H, end_outdated, end_owed
from carina.receive.reports import REQUESTS_OWED, CommitmentReports
from received_files import new_store
from waiting import wait_until

Send = Callable[[str, DicomDestination, int, Dataset], int]


def request(transaction: str = "1.2.9", count: int = 1) -> CommitmentRequest:
    wanted = tuple(("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(count))
    return CommitmentRequest(transaction_uid=transaction, references=wanted, project="default")


def owing(
    folder: Path, send: Send, monkeypatch: pytest.MonkeyPatch, before: CommitmentReports | None = None, name: str = "ct"
) -> CommitmentReports:
    """Reports of a node with the destination CT1, sent by ``send``; of one that ended ``before``, and starts again."""
    monkeypatch.setattr(reports, "_send", send)
    store = before or new_store(folder)
    settings = replace(store.settings, destinations={name: DicomDestination(host="h", port=1, ae_title="CT1")})
    return CommitmentReports(settings, store.engine, Pace(first_s=0.01, longest_s=0.02))


def taking(sent: list[str]) -> Send:
    """A peer that takes every report."""

    def send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> int:
        sent.append(str(report.TransactionUID))
        return 0

    return send


def age(engine: Engine, *, hours: float) -> None:
    """Let all that is owed have been so for longer."""
    with engine.begin() as connection:
        for row in connection.execute(select(OWED_REPORT)).all():
            values = {"tried_until": row.tried_until - timedelta(hours=hours)}
            connection.execute(update(OWED_REPORT).where(OWED_REPORT.c.id == row.id).values(values))


def in_rows(engine: Engine) -> list[str]:
    """The transactions that a database says are owed."""
    with engine.connect() as connection:
        return list(connection.execute(select(OWED_REPORT.c.transaction_uid).order_by(OWED_REPORT.c.id)).scalars())


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
    owed.owe("CT1", "192.0.2.1", request())
    paid()
    assert (sent, answers) == (["1.2.9"] * 5, [])
    owed.owe("CT1", "192.0.2.1", request("1.2.10"))
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
    owed.owe("CT1", "192.0.2.1", request())
    paid()
    assert len(sent) == 1
    assert "status 0x0112, no such object; it is not tried again" in caplog.text


def test_a_report_is_given_up_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    def away(name: str, *_: object) -> int:
        tries.append(name)
        if len(tries) == 3:
            age(owed.engine, hours=GIVEN_UP_H)
        raise DeliveryFailed("delivery.x", "it is away.")

    owed = owing(tmp_path, away, monkeypatch)
    owed.owe("CT1", "192.0.2.1", request())
    paid()
    assert len(tries) == 3
    assert caplog.messages[-1].endswith("did not reach ct: it is away; it is not tried again.")


def test_more_than_may_be_under_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    owed = owing(tmp_path, lambda *_: let_go.wait(60) and 0, monkeypatch)
    monkeypatch.setattr(reports, "INSTANCES_OWED", REQUESTS_OWED)
    owed.owe("CT1", "192.0.2.1", request(count=REQUESTS_OWED + 1))
    with pytest.raises(NotAccepted, match="1 requests of CT1 for storage commitment wait") as refused:
        owed.owe("CT1", "192.0.2.1", request())
    assert refused.value.status == 0x0213
    monkeypatch.setattr(reports, "INSTANCES_OWED", 10**6)
    for _ in range(REQUESTS_OWED - 1):
        owed.owe("CT1", "192.0.2.1", request())
    with pytest.raises(NotAccepted, match="64 requests of CT1 for storage commitment wait"):
        owed.owe("CT1", "192.0.2.1", request())
    owed.stop()
    let_go.set()
    paid()
    assert len(in_rows(owed.engine)) >= REQUESTS_OWED - 1, "all but the one that was under way"


def test_who_is_no_destination_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        NotAccepted, match="STRANGER asks for storage commitment, and can't be told: no destination has this ae_title"
    ):
        owing(tmp_path, lambda *_: 0, monkeypatch).owe("STRANGER", "192.0.2.1", request())


@pytest.mark.parametrize("broken", [KeyError("a bug"), TypeError("another"), OSError("a file")])
def test_a_report_that_breaks_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    sent: list[str] = []

    def send(name: str, peer: DicomDestination, event_type: int, report: Dataset) -> int:
        sent.append(str(report.TransactionUID))
        if sent[-1] == "1.2.9" and sent.count("1.2.9") < 3:
            raise broken
        return 0

    owed = owing(tmp_path, send, monkeypatch)
    owed.owe("CT1", "192.0.2.1", request())
    owed.owe("CT1", "192.0.2.1", request("1.2.10"))
    paid()
    assert (sent.count("1.2.9"), sent.count("1.2.10")) == (3, 1)
    assert in_rows(owed.engine) == []


def left_owing(folder: Path, monkeypatch: pytest.MonkeyPatch, *transactions: str) -> CommitmentReports:
    """Reports of a node that ended while its peer was away."""
    tried = threading.Event()

    def away(*_: object) -> int:
        tried.set()
        raise DeliveryFailed("delivery.x", "it is away.")

    owed = owing(folder, away, monkeypatch)
    for transaction in transactions:
        owed.owe("CT1", "192.0.2.1", request(transaction))
    wait_until(tried.is_set)
    owed.stop()
    paid()
    assert in_rows(owed.engine) == list(transactions)
    return owed


def test_what_is_owed_is_sent_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left_owing(tmp_path, monkeypatch, "1.2.9", "1.2.10")
    sent: list[str] = []
    owing(tmp_path, taking(sent), monkeypatch, before).start()
    paid()
    assert sent == ["1.2.9", "1.2.10"]
    assert in_rows(before.engine) == []


def test_instances_are_looked_at_once_whatever_ends_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = left_owing(tmp_path, monkeypatch, "1.2.9")
    monkeypatch.setattr(reports, "failure_reasons", lambda *_: pytest.fail("looked at again"))
    sent: list[str] = []
    owing(tmp_path, taking(sent), monkeypatch, before).start()
    paid()
    assert sent == ["1.2.9"]


def test_what_was_owed_for_too_long_is_ended_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = left_owing(tmp_path, monkeypatch, "1.2.9")
    age(before.engine, hours=GIVEN_UP_H)
    sent: list[str] = []
    owing(tmp_path, taking(sent), monkeypatch, before).start()
    paid()
    assert (sent, in_rows(before.engine)) == ([], [])
    assert "1 report(s) did not reach ct in 24 hours; they are not tried again" in caplog.text


def test_a_clock_that_is_set_back_makes_no_report_be_tried_for_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left_owing(tmp_path, monkeypatch, "1.2.9")
    age(before.engine, hours=-10 * GIVEN_UP_H)
    assert before._next("ct", 0) is not None
    age(before.engine, hours=GIVEN_UP_H)
    with before.engine.begin() as connection:
        assert end_outdated(connection) == {"ct": 1}


def test_what_is_owed_to_nobody_known_waits_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = left_owing(tmp_path, monkeypatch, "1.2.9")
    sent: list[str] = []
    owing(tmp_path, taking(sent), monkeypatch, before, name="other").start()
    paid()
    assert "1 report(s) wait for ct, which the settings don't have as a destination" in caplog.text
    owing(tmp_path, taking(sent), monkeypatch, before).start()
    paid()
    assert sent == ["1.2.9"]


def test_without_a_database_a_request_is_refused_and_reports_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[str] = []
    owed, fails = owing(tmp_path, taking(sent), monkeypatch), [True, True]
    away = OperationalError("select", None, sqlite3.OperationalError("disk I/O error"))

    def add(*_: object) -> None:
        raise away

    def end(*arguments: Any) -> None:
        if fails and fails.pop():
            raise away
        end_owed(*arguments)

    monkeypatch.setattr(reports, "end_owed", end)
    owed.owe("CT1", "192.0.2.1", request())
    paid()
    assert sent == ["1.2.9"] * 3, "sent again, since nobody knows that it was"
    assert caplog.text.count("storage commitment: reports wait: the database can't be") == 1
    monkeypatch.setattr(reports, "add_owed", add)
    with pytest.raises(NotAccepted, match="the database can't be") as refused:
        owed.owe("CT1", "192.0.2.1", request())
    assert refused.value.status == 0x0213


def test_of_two_with_one_title_each_is_told_at_its_own_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def send(name: str, *_: object) -> int:
        sent.append(name)
        return 0

    owed = owing(tmp_path, send, monkeypatch)
    twins = {name: DicomDestination(host=name, port=1, ae_title="CT1") for name in ("192.0.2.1", "192.0.2.2")}
    owed.settings = replace(owed.settings, destinations=twins)
    for address in ("192.0.2.2", "192.0.2.1"):
        owed.owe("CT1", address, request())
        paid()
    assert sent == ["192.0.2.2", "192.0.2.1"]
    with pytest.raises(NotAccepted, match=r"and none of them the address 192\.0\.2\.3; it is refused"):
        owed.owe("CT1", "192.0.2.3", request())
