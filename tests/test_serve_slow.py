"""Callers that send a byte now and then, or nothing: their connections end, and others are answered meanwhile."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import msgspec
import pytest

from carina.service import peers
from carina.service.serve import node_of
from served_nodes import serving, settings_of
from waiting import wait_until

AT_ONCE = 10


def asking(path: str, kind: str = "application/json", method: str = "POST") -> bytes:
    """The head of a request whose body is not there yet."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: 60000\r\n"
    return f"{head}Content-Digest: sha-256=:AAAA:\r\n\r\n".encode()


WHOLE = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW: dict[str, bytes] = {
    "nothing": b"",
    "a head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-More: ",
    "a head after an answer": WHOLE + b"GET / HT",
    "JSON": asking("/api/v1/jobs"),
    "a form": asking("/jobs/1/cancel", "application/x-www-form-urlencoded"),
    "a chunk": asking("/api/v1/uploads/" + "a" * 32 + "/chunk?name=a&offset=0", method="PUT"),
    "a correction": asking("/viewer/1/correct/stroke"),
    "what is refused before it came": asking("/nothing/here"),
    "no HTTP": b"\x16\x03\x01",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = settings_of(tmp_path_factory.mktemp("node"))
    node = node_of(msgspec.structs.replace(settings, dicom=msgspec.structs.replace(settings.dicom, idle_s=1.0)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peers, "HEAD_S", 1.0)
        with serving(node) as address:
            yield address
    node.engine.dispose()


def is_open(peer: socket.socket, kind: str) -> bool:
    """Send one byte more; whether the connection is still there."""
    try:
        if kind != "nothing":
            peer.send(b"a")
        while peer.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_caller_is_ended_and_keeps_no_other_waiting(url: str, kind: str) -> None:
    port = int(url.rpartition(":")[2])
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(AT_ONCE)]
        for caller in callers:
            caller.sendall(SLOW[kind])
            caller.setblocking(False)
        other = stack.enter_context(httpx.Client(base_url=url, timeout=60))

        def are_ended() -> bool:
            assert other.get("/health/live").is_success
            callers[:] = [caller for caller in callers if is_open(caller, kind)]
            return not callers

        wait_until(are_ended)


def test_who_is_slow_with_a_body_is_told(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        caller.sendall(SLOW["JSON"] + b"{")
        answer = b""
        while part := caller.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert b"1 bytes of it came in 1 s (dicom.idle_s), expected 65536 or all; send it again." in answer


def test_a_body_that_comes_in_pieces_is_waited_for(url: str) -> None:
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        caller.sendall(asking("/api/v1/jobs").replace(b"60000", b"2") + b"{")
        threading.Event().wait(0.2)
        caller.sendall(b"}")
        assert b" 400 " in caller.recv(65_536).splitlines()[0]


def test_who_goes_away_in_a_body_is_no_fault_of_ours(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carina.service.guard")
    port, gone = int(url.rpartition(":")[2]), ("JSON", "a form", "a chunk")
    for kind in gone:
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(SLOW[kind] + b"{")
    wait_until(lambda: caplog.messages.count("answered") == len(gone))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
