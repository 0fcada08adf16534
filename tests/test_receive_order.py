"""Fragments of messages in an order in which they can't be, and connections that end within one: nothing is stored."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pynetdicom.association import Association
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.listener import DicomListener
from carina.receive.part import IN_MEMORY
from raw_messages import (
    COMMAND,
    COMMITMENT,
    LAST,
    NO_DATA,
    STORE,
    associating,
    ct,
    element,
    node_for_messages,
    parts,
    request,
    say,
    say_all,
    until,
)
from receiving import echo, listening, rows


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    return node_for_messages(tmp_path)


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


@pytest.fixture
def associate(listener: DicomListener) -> Iterator[Callable[[], Association]]:
    yield from associating(listener)


def fragments(pieces: list[tuple[bytes, int, int]]) -> bytes:
    """A PDU of several fragments, each with its flags and presentation context."""
    items = [struct.pack(">LBB", len(one) + 2, context, flags) + one for one, flags, context in pieces]
    return struct.pack(">BBL", 4, 0, sum(map(len, items))) + b"".join(items)


ASKS = (request("1.2.3.4"), COMMAND | LAST, STORE)
CANCEL = element(0x0100, b"\xff\x0f") + element(0x0120, b"\1\0") + NO_DATA

DATA = b""
"""Stands for a data set."""

DISORDERED = {
    "it begins in presentation context 1, and is in 3 now": [ASKS, (DATA, 0, STORE), (DATA, LAST, COMMITMENT)],
    "it begins in presentation context 1, and is in 99 now": [ASKS, (DATA, LAST, 99)],
    "presentation context 99 was not agreed on": [(ASKS[0], ASKS[1], 99), (DATA, LAST, 99)],
    "a second command comes before the end of the first one's data set": [ASKS, (DATA, 0, STORE), ASKS],
    "a data set comes before its command": [(ASKS[0][:20], COMMAND, STORE), (DATA, LAST, STORE)],
}
"""Fragments in places where they can't be (PS3.8 annex E), by what is said of them."""


def send(association: Association, content: bytes, flags: int, context: int) -> None:
    """Send as many fragments as it takes, as long as they are listened to."""
    with suppress(OSError):
        for at in range(0, len(content), 100_000):
            say(association, content[at : at + 100_000], flags, context)


@pytest.mark.parametrize("pixels", [512, IN_MEMORY * 2])
@pytest.mark.parametrize("words", DISORDERED)
def test_fragments_out_of_order_end_the_association_in_one_line_and_nothing_is_stored(
    node: Settings,
    listener: DicomListener,
    engine: Engine,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    words: str,
    pixels: int,
) -> None:
    association = associate()
    for content, flags, context in DISORDERED[words]:
        send(association, content or ct("1.2.3.4", pixels), flags, context)
    assert until(lambda: words in caplog.text)
    assert until(lambda: association.dul.socket.socket is None or association.is_aborted)
    assert until(lambda: not parts(node))
    assert len([one for one in caplog.records if one.name.startswith("carina.")]) == 1
    assert echo(listener.port)
    assert rows(engine) == 0


def test_a_cancel_within_a_data_set_ends_the_association(
    engine: Engine, associate: Callable[[], Association], caplog: pytest.LogCaptureFixture
) -> None:
    association = associate()
    say(association, request("1.2.3.4"), COMMAND | LAST)
    say(association, ct("1.2.3.4", 512)[:100], 0)
    say(association, CANCEL, COMMAND | LAST)
    assert until(lambda: "a second command comes before the end" in caplog.text)
    assert rows(engine) == 0


def test_a_message_may_end_and_the_next_begin_in_one_pdu(engine: Engine, associate: Callable[[], Association]) -> None:
    association, first, second = associate(), ct("1.2.3.4", 512), ct("1.2.3.5", 512)
    association.dul.socket.socket.sendall(fragments([(request("1.2.3.4"), COMMAND | LAST, STORE)]))
    more = (request("1.2.3.5", number=2), COMMAND | LAST, STORE)
    association.dul.socket.socket.sendall(fragments([(first, LAST, STORE), more, (second, LAST, STORE)]))
    assert until(lambda: rows(engine) == 2)


@pytest.mark.parametrize("pixels", [512, IN_MEMORY * 2])
def test_a_request_that_names_nothing_is_refused_in_one_line(
    node: Settings,
    engine: Engine,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    pixels: int,
) -> None:
    association = associate()
    nameless = element(0x0100, b"\1\0") + element(0x0110, b"\1\0") + element(0x0800, b"\1\0")
    say(association, nameless, COMMAND | LAST)
    say_all(association, ct("1.2.3.4", pixels))
    assert until(lambda: "a request lacks what it must say: aborted" in caplog.text)
    assert until(lambda: not parts(node))
    assert rows(engine) == 0


@pytest.mark.parametrize("pixels", [512, IN_MEMORY * 2])
def test_a_connection_that_ends_within_a_data_set_is_said(
    node: Settings,
    engine: Engine,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    pixels: int,
) -> None:
    association = associate()
    say(association, request("1.2.3.4"), COMMAND | LAST)
    send(association, ct("1.2.3.4", pixels)[:-200], 0, STORE)
    association.dul.socket.socket.close()
    assert until(lambda: "it ended within a message, of which nothing is kept" in caplog.text)
    assert until(lambda: not parts(node))
    assert rows(engine) == 0
