"""A peer that takes objects and gives no answer that can be understood: it is tried less and less often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from carina.config import DicomwebDestination
from carina.deliver import ledger
from carina.deliver.answers import Answer, Outcome
from carina.deliver.channels import Channel, Session
from carina.deliver.courier import Courier
from carina.deliver.pace import Pace
from carina.deliver.proof import Proof
from carina.errors import DeliveryFailed
from delivery_objects import NOW, add_job, new_ledger, write_objects

PACE = Pace(first_s=5, longest_s=60, idle_s=1, report_s=5)
MOST_ROUNDS = 500
SENT = 6


@dataclass
class Unanswering:
    """Answers queries, has nothing, and ends every sending as it is told: by an error's code, or by no answer."""

    code: str
    now: datetime = NOW
    sent_at: list[datetime] = field(default_factory=list)
    where: str = "http://peer"
    proof: Proof = Proof.QUERY
    is_open: bool = True

    @contextmanager
    def storing(self, _: Sequence[Path]) -> Iterator[Session]:
        yield cast(Session, self)

    def store(self, _: Path) -> Answer:
        self.sent_at.append(self.now)
        if not self.code:
            return Answer(outcome=Outcome.UNKNOWN, note="no answer")
        raise DeliveryFailed(self.code, "it had no end.")

    def held(self, _: Sequence[Path]) -> frozenset[str]:
        return frozenset()


@pytest.mark.parametrize(
    "code", ["", "delivery.endless", "delivery.cut-off", "delivery.no-json", "delivery.unreachable"]
)
def test_pauses_grow_however_the_answer_fails(tmp_path: Path, code: str) -> None:
    peer, destination = Unanswering(code), DicomwebDestination(url="http://peer", confirm_s=5)
    engine = new_ledger(tmp_path)
    files = write_objects(tmp_path / "runs" / "1")[:1]
    with engine.begin() as connection:
        ledger.enter(connection, add_job(connection), {"PACS": destination}, files, folder=tmp_path, now=NOW)
    courier = Courier(
        engine=engine,
        folder=tmp_path,
        name="PACS",
        destination=destination,
        channel=cast(Channel, peer),
        pace=PACE,
        clock=lambda: peer.now,
    )
    for _ in range(MOST_ROUNDS):
        if len(peer.sent_at) == SENT:
            break
        if not courier.round():
            peer.now += timedelta(seconds=1)
    engine.dispose()
    pauses = [(later - earlier).total_seconds() for earlier, later in zip(peer.sent_at, peer.sent_at[1:], strict=False)]
    assert [pause >= PACE.after(number).total_seconds() for number, pause in enumerate(pauses, start=1)] == [True] * 5
