"""A peer that refuses storage commitment each time: there is an end to it, and the delivery says why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import status_words
from carina.deliver.commitment import MOST_DELAYS, MOST_REFUSALS
from carina.deliver.courier import Courier
from carina.deliver.losses import MOST_LOSSES
from carina.testing.difficult_pacs import DifficultPacs, Mood, difficult_pacs
from delivery_objects import new_ledger
from test_commitment import ANSWERS, LATER, UIDS, ask, report, states, take
from test_courier import Node, to

HOW = "mend it there, or set destinations.PACS.commitment to false, then resend; it is asked first."


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


@pytest.mark.parametrize(
    ("commits", "mood", "status"), [(True, Mood.FINE, 0x0112), (False, Mood.LYING, 0)], ids=["commitment", "query"]
)
def test_what_a_peer_stores_and_never_has_is_not_sent_for_ever(
    tmp_path: Path, *, commits: bool, mood: Mood, status: int
) -> None:
    node = Node(tmp_path)
    with difficult_pacs(mood, commits=commits) as pacs:
        pacs.refusal = 0x0112
        destination = to(pacs, commitment=commits, confirm_s=1.0)
        node.enter(destination, node.files[:1])
        courier = node.courier(destination)
        waits = sent_until_failed(node, courier, pacs)
        assert waits[0] < 30
        assert min(waits[-3:]) >= 60
        (row,) = node.rows()
        assert row.error.startswith(f"PACS said {MOST_LOSSES} times that it stored the object, and has it not (")
        assert row.error.endswith("): see what becomes of it there, then resend; it is asked first.")
        assert row.status == status
        pacs.refusal, pacs.mood = None, Mood.FINE
        with node.engine.begin() as connection:
            assert ledger.resend(connection) == 1
        node.deliver(courier)
        assert node.states() == ["confirmed"]
        assert pacs.requests.total() == 9 + (not commits)  # what it never had is sent once more
    node.engine.dispose()


def sent_until_failed(node: Node, courier: Courier, pacs: DifficultPacs) -> list[float]:
    """The waits between the sendings of an object, but for many in the middle."""
    sent: list[datetime] = []
    while node.states() != ["failed"]:
        if not courier.round():
            node.clock.now += timedelta(seconds=5 if len(sent) < 8 else 61)
        sent += [node.clock.now] * (pacs.requests.total() - len(sent))
        if len(sent) == 8:
            with node.engine.begin() as connection:
                connection.execute(update(DELIVERY).where(DELIVERY.c.lost == 7).values(lost=MOST_LOSSES - 2))
    assert len(sent) == 9
    return [(after - before).total_seconds() for before, after in pairwise(sent)]


@pytest.mark.parametrize(
    ("reason", "most"), [(0x0110, MOST_DELAYS), (0x0213, MOST_DELAYS), (None, MOST_DELAYS), (0x0122, MOST_REFUSALS)]
)
def test_what_is_refused_for_another_reason_is_asked_about_for_a_day_where_that_may_pass(
    engine: Engine, tmp_path: Path, reason: int | None, most: int
) -> None:
    """Each time after a longer wait, and without sending anything."""
    ask(engine, tmp_path)
    with engine.begin() as connection:
        connection.execute(update(DELIVERY).values(refused=most - 8))
    waits = []
    for number in range(8):
        with engine.begin() as connection:
            for entry in ledger.due(connection, "PACS", LATER + timedelta(days=1)):
                assert not ledger.begin_sending(connection, entry, LATER)
                ledger.mark_asked(connection, entry, f"2.25.{number}", now=LATER, until=LATER)
        take(engine, report([], [(uid, reason) for uid in UIDS], f"2.25.{number}"))
        with engine.connect() as connection:
            ((until, state),) = connection.execute(select(DELIVERY.c.not_before, DELIVERY.c.state).distinct())
        waits.append(((until - LATER).total_seconds() if until else None, state))
    first = [5, 10, 20, 40, 80, 160, 300] if most == MOST_REFUSALS else [300] * 7
    assert waits == [*((wait, "sent") for wait in first), (None, "failed")]
    said = status_words(reason) if reason is not None else "no reason given"
    with engine.connect() as connection:
        assert set(connection.execute(select(DELIVERY.c.error)).scalars()) == {
            f"PACS refused storage commitment {most} times, the last time with {said}: {HOW}"
        }


@pytest.mark.parametrize("answer", ["refused", "none"])
def test_that_a_peer_has_not_what_it_never_said_to_have_stored_is_no_refusal(
    engine: Engine, tmp_path: Path, answer: str
) -> None:
    ask(engine, tmp_path)
    with engine.begin() as connection:
        connection.execute(update(DELIVERY).values(state="waiting", lost=MOST_REFUSALS - 1, refused=MOST_REFUSALS - 1))
        for entry in ledger.due(connection, "PACS", LATER):
            ANSWERS[answer](connection, entry)
        for entry in ledger.due(connection, "PACS", LATER):
            ledger.mark_asked(connection, entry, "2.25.8", now=LATER, until=LATER)
    take(engine, report([], dict.fromkeys(UIDS, 0x0112), "2.25.8"))
    assert set(states(engine).values()) == {("waiting", 0)}
