"""A peer that refuses storage commitment each time: there is an end to it, and the delivery says why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from carina.database import DELIVERY
from carina.deliver import ledger
from carina.deliver.answers import status_words
from carina.deliver.commitment import MOST_DELAYS, MOST_REFUSALS
from carina.testing.difficult_pacs import difficult_pacs
from delivery_objects import NOW, new_ledger
from test_commitment import ANSWERS, LATER, UIDS, ask, report, states, take
from test_courier import Node, to

HOW = "mend it there, or set destinations.PACS.commitment to false, then resend; it is asked first."


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = new_ledger(node_database)
    yield made
    made.dispose()


def test_what_a_peer_stores_and_never_commits_itself_to_is_not_sent_for_ever(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with difficult_pacs(commits=True) as pacs:
        pacs.refusal = 0x0112
        destination = to(pacs, commitment=True, confirm_s=1.0)
        node.enter(destination, node.files[:1])
        courier = node.courier(destination)
        while node.states() != ["failed"]:
            if not courier.round():
                node.clock.now += timedelta(seconds=5)
            assert node.clock.now < NOW + timedelta(hours=1)
        assert pacs.requests.total() == MOST_REFUSALS
        words = f"PACS refused storage commitment 8 times, the last time with status 0x0112, no such object: {HOW}"
        assert [(row.error, row.status) for row in node.rows()] == [(words, 0x0112)]
        pacs.refusal = None
        with node.engine.begin() as connection:
            assert ledger.resend(connection) == 1
        node.deliver(courier)
        assert node.states() == ["confirmed"] and pacs.requests.total() == MOST_REFUSALS
    node.engine.dispose()


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
