"""The web port has so many places: nobody keeps others out by taking them, nor by reading no answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from carina.service.node import RunningNode
from carina.service.peers import HEAD_S, PeerProtocol
from carina.service.serve import node_of, server_config
from carina.service.slow import LEAST_BYTES
from carina.service.visitors import ADDRESS_SHARE, Visitors
from served_nodes import serving, settings_of

MOST = 8


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connections with their other ends."""
    made = [socket.socketpair() for _ in range(MOST + 1)]
    yield made
    for one in [end for pair in made for end in pair]:
        one.close()


Pairs = Sequence[tuple[socket.socket, socket.socket]]

FULL: dict[str, tuple[Sequence[str], Sequence[int], str, int | None]] = {
    "of one address, all idle": ("a" * MOST, (), "b", 0),
    "of one address, some at work": ("a" * MOST, (0, 1), "b", 2),
    "of one address, all at work": ("a" * MOST, range(MOST), "b", 0),
    "of whoever comes, all idle": ("a" * MOST, (), "a", 0),
    "of whoever comes, some at work": ("a" * MOST, (0, 2), "a", 1),
    "of whoever comes, all at work": ("a" * MOST, range(MOST), "a", None),
    "in equal shares, all idle": ("abcd" * (MOST // ADDRESS_SHARE), (), "e", 0),
    "in equal shares, all at work": ("abcd" * (MOST // ADDRESS_SHARE), range(MOST), "e", None),
    "one with more than its share, at work, beside an idle one": ("b" + "a" * (MOST - 1), range(1, MOST), "c", 1),
}
"""Whose connections are open, which are at work, who comes, which is closed: none, where the newcomer is refused."""


@pytest.mark.parametrize("how", FULL)
def test_who_makes_room_where_none_is_left(pairs: Pairs, how: str, caplog: pytest.LogCaptureFixture) -> None:
    addresses, at_work, newcomer, closed = FULL[how]
    visitors = Visitors(MOST)
    for (ours, _), address in zip(pairs, addresses, strict=False):
        assert visitors.admit(ours, address)
    for number in at_work:
        visitors.note(pairs[number][0].fileno(), is_awaited=False)
    assert visitors.admit(pairs[MOST][0], newcomer) is (closed is not None)
    assert [number for number, (_, theirs) in enumerate(pairs) if _is_ended(theirs)] == [closed] * (closed is not None)
    assert len(caplog.messages) <= 1 and all("(web.connections)" in one for one in caplog.messages)


def _is_ended(end: socket.socket) -> bool:
    end.setblocking(False)
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


def test_connections_that_have_ended_take_no_place(pairs: Pairs) -> None:
    visitors = Visitors(MOST)
    for ours, _ in pairs[:MOST]:
        assert visitors.admit(ours, "a")
        visitors.note(ours.fileno(), is_awaited=False)
    pairs[3][0].close()
    assert visitors.admit(pairs[MOST][0], "a")
    assert not any(_is_ended(theirs) for number, (_, theirs) in enumerate(pairs) if number != 3)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    settings = settings_of(tmp_path)
    web = msgspec.structs.replace(settings.web, connections=MOST)
    dicom = msgspec.structs.replace(settings.dicom, idle_s=1.0)
    made = node_of(msgspec.structs.replace(settings, web=web, dicom=dicom))
    yield made
    made.engine.dispose()


HALF = {"nothing": b"", "a head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-More: "}


def test_many_that_ask_for_nothing_keep_nobody_out(node: RunningNode) -> None:
    with ExitStack() as kept, serving(node) as url:
        for number in range(2 * MOST):
            caller = kept.enter_context(socket.create_connection(("127.0.0.1", node.settings.web.port)))
            caller.sendall(list(HALF.values())[number % 2])
        assert httpx.get(f"{url}/health/live", timeout=60).is_success


def test_who_reads_no_answer_is_ended_and_who_reads_has_it_whole(node: RunningNode) -> None:
    """Answers in pieces, and at once."""
    piece, pieces, ended = bytes(1_000_000), 40, threading.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size = len(piece) * pieces
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for body in [piece * pieces] if scope["path"] == "/at-once" else [piece] * pieces:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})
        ended.release()

    with ExitStack() as kept, serving(node, app) as url:
        for path in ("/at-once", "/pieces"):
            caller = kept.enter_context(socket.create_connection(("127.0.0.1", node.settings.web.port)))
            caller.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert len(httpx.get(f"{url}/pieces", timeout=60).content) == len(piece) * pieces
        for _ in range(3):
            assert ended.acquire(timeout=60)


class Timers:
    """In a loop's place: what is to be called, which the test calls."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, function: Callable[..., None], *arguments: object) -> _Handle:
        self.due.append((seconds, lambda: function(*arguments)))
        return _Handle(self.due, self.due[-1])

    def fire(self, seconds: float) -> None:
        """Call what is due after so long."""
        (entry,) = [one for one in self.due if one[0] == seconds]
        self.due.remove(entry)
        entry[1]()


class _Handle:
    def __init__(self, due: list[Any], entry: Any) -> None:
        self._due, self._entry = due, entry

    def cancel(self) -> None:
        if self._entry in self._due:
            self._due.remove(self._entry)


class Wire:
    """In a transport's place: so much waits to be read, and how it was ended."""

    def __init__(self, connection: socket.socket) -> None:
        self.left, self.how, self._connection = 0, "", connection

    def get_extra_info(self, name: str) -> Any:
        return self._connection if name == "socket" else None

    def set_write_buffer_limits(self, high: int) -> None:
        assert high <= 65_536

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return bool(self.how)

    def close(self) -> None:
        self.how = self.how or "closed"

    def abort(self) -> None:
        self.how = "aborted"


@pytest.fixture
def talk(node: RunningNode, pairs: Pairs) -> tuple[PeerProtocol, Wire, Timers]:
    timers, wire = Timers(), Wire(pairs[0][0])
    protocol = PeerProtocol(server_config(node), ServerState(), {}, cast("Any", timers))
    protocol.connection_made(cast("Any", wire))
    return protocol, wire, timers


Talk = tuple[PeerProtocol, Wire, Timers]


def test_an_answer_that_is_read_on_is_waited_for(talk: Talk) -> None:
    protocol, wire, timers = talk
    wire.left = 10 * LEAST_BYTES
    protocol.pause_writing()
    for part in (9, 8, 3):
        wire.left = part * LEAST_BYTES
        timers.fire(1.0)
        assert not wire.how
    timers.fire(1.0)
    assert wire.how == "aborted", "nothing was read any more"


def test_what_was_read_is_looked_at_no_more(talk: Talk) -> None:
    protocol, wire, timers = talk
    wire.left = LEAST_BYTES
    protocol.pause_writing()
    protocol.resume_writing()
    assert [seconds for seconds, _ in timers.due] == [HEAD_S]


@pytest.mark.parametrize("reads_a_little", [False, True])
def test_the_end_of_an_answer_is_not_waited_for_without_end(talk: Talk, *, reads_a_little: bool) -> None:
    protocol, wire, timers = talk
    wire.left = LEAST_BYTES
    timers.fire(HEAD_S)
    assert wire.how == "closed", "which sends what is left first"
    if reads_a_little:
        wire.left = 1000
        protocol.resume_writing()
    timers.fire(1.0)
    assert wire.how == "aborted"


def test_a_connection_that_is_lost_is_waited_for_no_more(talk: Talk) -> None:
    protocol, _, timers = talk
    protocol.pause_writing()
    protocol.connection_lost(None)
    assert not timers.due
