"""The sender killed between any two steps, and the peer as late as it may be: every object is stored once.

Nothing here is random or waits: the clock stands, the peer is a model that stores what reaches it after a while, and
a fault is set off at each step in turn, before and after every commit and every word with the peer.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset
from sqlalchemy import Connection, Engine, select

from carina.config import DicomDestination
from carina.database import DELIVERY, SCHEMA, open_database
from carina.deliver import courier as courier_module
from carina.deliver import ledger
from carina.deliver.answers import NO_SUCH_OBJECT, Answer, Outcome
from carina.deliver.channels import Channel, Session
from carina.deliver.commitment import take_report
from carina.deliver.courier import Courier
from carina.deliver.identity import identity_of
from carina.deliver.ledger import DeliveryState, Entry
from carina.deliver.pace import Pace
from carina.deliver.proof import Proof
from carina.deliver.reported import ALL_KEPT, SOME_REFUSED, PeerReport, ReportRefused, read_report
from carina.errors import DeliveryFailed
from delivery_objects import NOW, add_job, write_objects

PACE = Pace(first_s=5, longest_s=60, idle_s=1, report_s=5)
CONFIRM_S = 20.0
NEARLY = timedelta(seconds=CONFIRM_S - 0.1)
SLOW = timedelta(seconds=3 * CONFIRM_S)
MOST_ROUNDS = 150


identified = cache(identity_of)
"""The files stay as they are, and are read once: trials ask for nothing more often."""


class Killed(BaseException):
    """What a killed process does not get to do: nobody catches it."""


@dataclass
class Steps:
    """Counts what the sender does, and kills it at the steps that it is told."""

    kills: frozenset[int] = frozenset()
    taken: int = 0

    def __call__(self) -> None:
        self.taken += 1
        if self.taken in self.kills:
            raise Killed


@dataclass
class SteppedEngine:
    """An engine whose commits are steps: one before, one after."""

    engine: Engine
    step: Steps

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            yield connection
            self.step()
        self.step()

    def connect(self) -> Connection:
        return self.engine.connect()


@dataclass
class LatePeer:
    """Has an object so long after it was sent; ``slow`` is how long sending takes, which then ends without an answer.

    ``breaks`` is how that ends: no answer, or an error of the whole destination.
    """

    clock: Clock
    step: Steps
    late: timedelta
    slow: timedelta | None = None
    breaks: bool = False
    due: list[tuple[datetime, str]] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)
    reports: list[PeerReport] = field(default_factory=list)
    where: str = "LATE"
    proof: Proof = Proof.QUERY
    is_open: bool = True

    @contextmanager
    def storing(self, _: Sequence[Path]) -> Iterator[Session]:
        self.step()
        yield cast(Session, self)

    def store(self, file: Path) -> Answer:
        self.step()
        slow, self.slow = self.slow, None
        self.clock.now += slow or timedelta()
        self.due.append((self.clock.now + self.late, identified(file).sop_instance_uid))
        self.step()
        if slow is None:
            return Answer(outcome=Outcome.STORED, status=0)
        if self.breaks:
            raise DeliveryFailed("delivery.unreachable", "it broke off.")
        return Answer(outcome=Outcome.UNKNOWN, note="no answer")

    def held(self, files: Sequence[Path]) -> frozenset[str]:
        self.step()
        asked = {identified(file).sop_instance_uid for file in files}
        found = frozenset(asked & self.here())
        self.step()
        return found

    def here(self) -> set[str]:
        arrived = [one for one in self.due if one[0] <= self.clock.now]
        self.due = [one for one in self.due if one not in arrived]
        self.stored.update(uid for _, uid in arrived)
        return set(self.stored)

    def commit(
        self, begin: Callable[[], str], entries: Sequence[Entry], _: str, __: object, ___: object, take: object
    ) -> bool:
        """Takes a request for storage commitment; what it says of it comes before the next round, to whoever lives."""
        self.step()
        here, report = self.here(), Dataset()
        report.TransactionUID = begin()
        report.ReferencedSOPSequence, report.FailedSOPSequence = [], []
        for entry in entries:
            item = Dataset()
            item.ReferencedSOPClassUID = entry.sop_class_uid
            item.ReferencedSOPInstanceUID = entry.sop_instance_uid
            if entry.sop_instance_uid not in here:
                item.FailureReason = NO_SUCH_OBJECT
            (report.ReferencedSOPSequence if entry.sop_instance_uid in here else report.FailedSOPSequence).append(item)
        self.reports.append(read_report(SOME_REFUSED if report.FailedSOPSequence else ALL_KEPT, report))
        self.step()
        return True


class Clock:
    """A clock that stands until it is told."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now


@cache
def databases() -> tuple[Engine, sqlite3.Connection]:
    """The database of all trials, which remembers how statements are compiled, and an empty one to begin each with."""
    blank = open_database("sqlite://")
    SCHEMA.create_all(blank)
    return open_database("sqlite://"), cast(sqlite3.Connection, blank.raw_connection().driver_connection)


def emptied() -> Engine:
    engine, blank = databases()
    with engine.connect() as connection:
        blank.backup(cast(sqlite3.Connection, connection.connection.driver_connection))
    return engine


@dataclass
class Trial:
    """A node with the objects of two jobs, which are the same, on their way to one peer."""

    folder: Path
    commitment: bool
    kills: Sequence[int] = ()
    late: timedelta = NEARLY
    slow: timedelta | None = None
    breaks: bool = False

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.engine = emptied()
        self.steps = Steps(frozenset(self.kills))
        self.peer = LatePeer(self.clock, self.steps, self.late, self.slow, self.breaks)
        self.destination = DicomDestination(
            host="127.0.0.1", port=1, ae_title="A", commitment=self.commitment, confirm_s=CONFIRM_S
        )
        files = sorted(self.folder.glob("*.dcm"))
        for _ in range(2):
            with self.engine.begin() as connection:
                places = {"PACS": self.destination}
                ledger.enter(connection, add_job(connection), places, files, folder=self.folder, now=NOW)

    def run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sender after the other, each until it is killed; the last one until nothing is under way."""
        monkeypatch.setattr(courier_module, "ask_commitment", self.peer.commit)
        monkeypatch.setattr(courier_module, "identity_of", identified)
        for _ in range(len(self.kills) + 1):
            with suppress(Killed):
                self._deliver()
                return
        raise AssertionError("killed more often than told")

    def _deliver(self) -> None:
        courier = Courier(
            engine=cast(Engine, SteppedEngine(self.engine, self.steps)),
            folder=self.folder,
            name="PACS",
            destination=self.destination,
            channel=cast(Channel, self.peer),
            pace=PACE,
            clock=self.clock,
        )
        courier.resume()
        for _ in range(MOST_ROUNDS):
            if not courier.round():
                self.clock.now += timedelta(seconds=PACE.first_s / 2)
            while self.peer.reports:
                with suppress(ReportRefused):  # one that comes after another transaction was begun
                    take_report(self.engine, self.peer.reports.pop(), self.clock(), PACE)
            if not set(self.states()) & set(ledger.UNDER_WAY):
                return
        raise AssertionError(f"still under way: {self.states()}")

    def states(self) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(select(DELIVERY.c.state)).scalars())

    def check(self) -> None:
        uids = [identified(file).sop_instance_uid for file in self.folder.glob("*.dcm")]
        assert self.peer.stored == Counter(uids), f"killed at {self.kills}"
        assert set(self.states()) == {DeliveryState.CONFIRMED}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("node")
    write_objects(made, classes=["1.2.840.10008.5.1.4.1.1.104.1"] * 2)
    return made


KINDS: dict[str, dict[str, Any]] = {
    "late": {},
    "at once": {"late": timedelta()},
    "slow, then silent": {"slow": SLOW},
    "slow, then broken": {"slow": SLOW, "breaks": True},
}


@pytest.mark.parametrize("commitment", [False, True], ids=["query", "commitment"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_step_every_object_is_stored_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, commitment: bool
) -> None:
    def trial(kills: Sequence[int] = ()) -> Trial:
        return Trial(folder, commitment, kills, **KINDS[kind])

    whole = trial()
    whole.run(monkeypatch)
    whole.check()
    for step in range(1, whole.steps.taken + 1):
        for kills in ([step], [step, step + 3]) if kind == "late" else ([step],):
            killed = trial(kills)
            killed.run(monkeypatch)
            killed.check()
