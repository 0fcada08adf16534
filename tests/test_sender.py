"""The sender's threads: a dead or slow destination delays no other, one sender for a node, a bug ends no deliveries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from carina.config import Destination, DicomDestination, FolderDestination
from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.courier import Courier
from carina.deliver.ledger import DeliveryState
from carina.deliver.pace import Pace
from carina.deliver.sender import Sender
from carina.errors import BadConfig
from carina.testing.difficult_pacs import Mood, difficult_pacs
from carina.testing.ports import free_port
from delivery_objects import NOW, PATIENCE_S, add_job, eventually, new_ledger, write_objects

PACE = Pace(first_s=0.1, longest_s=0.5, idle_s=0.02, report_s=1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = new_ledger(tmp_path)
    yield made
    made.dispose()


def enter(engine: Engine, folder: Path, destinations: dict[str, Destination]) -> None:
    files = write_objects(folder / "runs" / "1")
    with engine.begin() as connection:
        ledger.enter(connection, add_job(connection), destinations, files, folder=folder, now=NOW)


def number(engine: Engine, destination: str, state: DeliveryState) -> int:
    with engine.begin() as connection:
        return ledger.counts(connection).get(destination, {}).get(state, 0)


def utc() -> datetime:
    return datetime.now(UTC)


def test_a_dead_and_a_slow_destination_delay_no_other(engine: Engine, tmp_path: Path) -> None:
    with difficult_pacs(Mood.SLOW) as pacs:
        pacs.slow_s = PATIENCE_S
        destinations: dict[str, Destination] = {
            "dead": DicomDestination(host="127.0.0.1", port=free_port(), ae_title="DEAD", timeout_s=60),
            "slow": DicomDestination(host="127.0.0.1", port=pacs.port, ae_title="DIFFICULT", timeout_s=60),
            "share": FolderDestination(path=str(tmp_path / "share")),
        }
        enter(engine, tmp_path, destinations)
        sender = Sender(engine, tmp_path, destinations, utc, PACE)
        sender.start()
        eventually(lambda: number(engine, "share", DeliveryState.CONFIRMED) == 5)
        assert number(engine, "dead", DeliveryState.WAITING) == number(engine, "slow", DeliveryState.WAITING) == 5
        pacs.go_on.set()
        eventually(lambda: number(engine, "slow", DeliveryState.CONFIRMED) == 5)
        assert sender.stop()
        assert number(engine, "dead", DeliveryState.WAITING) == 5


def test_a_destination_that_is_away_is_said_when_that_begins_and_ends_and_not_for_each_try(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carina")
    tries: list[str] = []
    put_off = ledger.put_off

    def counted(*given: Any) -> None:
        tries.append("away")
        put_off(*given)

    monkeypatch.setattr(ledger, "put_off", counted)
    with difficult_pacs() as pacs:
        pacs.down()
        there: dict[str, Destination] = {
            "archive": DicomDestination(host="127.0.0.1", port=pacs.port, ae_title=pacs.ae_title, timeout_s=60)
        }
        enter(engine, tmp_path, there)
        sender = Sender(engine, tmp_path, there, utc, PACE)
        sender.start()
        eventually(lambda: len(tries) >= 3)
        pacs.up()
        eventually(lambda: number(engine, "archive", DeliveryState.CONFIRMED) == 5)
        assert sender.stop()
    said = [line for line in caplog.messages if line.startswith("destination archive: ")]
    assert [line.partition(" can't be reached: ")[0].partition(" after ")[0] for line in said] == [
        f"destination archive: archive ({pacs.ae_title}@127.0.0.1:{pacs.port})",
        "destination archive: works again",
    ]


def test_a_node_has_one_sender(engine: Engine, tmp_path: Path) -> None:
    first, second = (Sender(engine, tmp_path, {}, utc, PACE) for _ in range(2))
    first.start()
    with pytest.raises(BadConfig, match=r"sender\.lock: another process delivers from this node's folder: stop it"):
        second.start()
    assert first.stop()
    second.start()
    assert second.stop()


def test_a_fault_of_ours_ends_no_deliveries(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destinations: dict[str, Destination] = {"share": FolderDestination(path=str(tmp_path / "share"))}
    enter(engine, tmp_path, destinations)
    rounds, real = [], Courier.round

    def broken_once(courier: Courier) -> bool:
        rounds.append(courier.name)
        if len(rounds) == 1:
            raise ZeroDivisionError
        return real(courier)

    monkeypatch.setattr(Courier, "round", broken_once)
    sender = Sender(engine, tmp_path, destinations, utc, PACE)
    sender.start()
    eventually(lambda: number(engine, "share", DeliveryState.CONFIRMED) == 5)
    assert sender.stop()


def test_times_are_those_of_the_clock(engine: Engine, tmp_path: Path) -> None:
    destinations: dict[str, Destination] = {"share": FolderDestination(path=str(tmp_path / "share"))}
    enter(engine, tmp_path, destinations)
    sender = Sender(engine, tmp_path, destinations, lambda: NOW, PACE)
    sender.start()
    eventually(lambda: number(engine, "share", DeliveryState.CONFIRMED) == 5)
    assert sender.stop()
    with engine.connect() as connection:
        rows = connection.execute(select(DELIVERY.c.sent_at, DELIVERY.c.confirmed_at)).all()
    assert {tuple(time.replace(tzinfo=UTC) for time in row) for row in rows} == {(NOW, NOW)}
