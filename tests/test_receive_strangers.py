"""Connections that are no DICOM association, or break off as one: the log says who it was and what was wrong, once."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.listener import DicomListener
from raw_messages import COMMAND, LAST, NO_DATA, element
from receiving import listening, receiver_settings
from waiting import wait_until

LOGGERS = ("carina.receive.strangers", "carina.receive.messages", "carina.receive.listener")


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = receiver_settings(tmp_path)
    return replace(made, dicom=replace(made.dicom, idle_s=1))


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content) if length is None else length) + content


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def request(*, calling: bytes = b"CT1", called: bytes = b"CARINA") -> bytes:
    """An A-ASSOCIATE-RQ for C-ECHO (PS3.8 9.3.2)."""
    context = item(0x20, b"\x01\0\0\0" + item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2"))
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    titles = called.ljust(16) + calling.ljust(16) + bytes(32)
    return pdu(1, struct.pack(">HH", 1, 0) + titles + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user)


def command(flags: int, content: bytes) -> bytes:
    """A P-DATA-TF with one fragment of a command."""
    return pdu(4, struct.pack(">IBB", len(content) + 2, 1, COMMAND | flags) + content)


def client_hello() -> bytes:
    out = ssl.MemoryBIO()
    begun = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="node")
    with suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return out.read()


def say(port: int, *parts: bytes) -> None:
    """Send parts, each but the first after an answer, and wait until the listener closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer, suppress(OSError):
        for number, part in enumerate(parts):
            if number:
                peer.recv(4096)
            peer.sendall(part)
        if len(parts[-1]) > 6:
            peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name in LOGGERS and one.levelno >= logging.WARNING]


BEFORE: dict[str, tuple[bytes, str]] = {
    "HTTP": (b"GET / HTTP/1.0\r\n\r\n", "it spoke HTTP, and this port speaks DICOM"),
    "TLS": (client_hello(), "it began TLS, and this port has none"),
    "4 GB": (pdu(1, bytes(100), 0xFFFFFFF0), "it announced a PDU of 4294967280 bytes"),
    "data first": (pdu(4, b"\0\0\0\x05\x01\x03abc"), "its P-DATA-TF PDU came before an association was asked for"),
    "noise": (b"\x99" * 300, "a PDU of type 99H came, which DICOM does not know"),
    "empty request": (pdu(1, b""), "its PDU of type 01H can't be read"),
    "cut": (request()[:50], "it ended within a PDU"),
    "slow": (request()[:6], "a PDU did not come within 1 s"),
    "calling title": (request(calling=b"\x1b[31mX\n\xff"), "can't be"),
    "called title": (request(called=b"CARINA\0\n\x1b[31m"), "can't be"),
    "no such title": (request(called=b"NOBODY"), "association of CT1 refused: no source is called NOBODY."),
    "another caller": (request(calling=b"CT9", called=b"WARD"), "association of CT9 refused by source ward."),
}

WITHIN: dict[str, tuple[bytes, str]] = {
    "empty PDV": (pdu(4, bytes(4)), "can't be"),
    "PDV longer than its PDU": (pdu(4, struct.pack(">I", 5000) + b"\1\3abcd"), "can't be"),
    "unknown PDU": (pdu(0x99, b"abcd"), "a PDU of type 99H came"),
    "4 GB": (pdu(4, b"abcdef", 0xFFFFFFF0), "it announced a PDU of 4294967280 bytes"),
    "a request that names nothing": (
        command(LAST, element(0x0100, b"\x30\0") + element(0x0110, b"\1\0") + NO_DATA),
        "a request lacks what it must say: aborted",
    ),
    "the end within a message": (command(0, element(0x0100, b"\x30\0")), "it ended within a message"),
    "a large command": (command(0, bytes(70_000)), "a command set of over 65536 bytes: association aborted"),
    "a second request": (request(), "its A-ASSOCIATE-RQ PDU came where none may come"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_no_association_is_one_line(
    listener: DicomListener, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sent, words = BEFORE[name]
    for _ in range(3):
        say(listener.port, sent)
    wait_until(lambda: lines(caplog))
    [line] = lines(caplog)
    assert line.startswith("connection from 127.0.0.1: ")
    assert words in line
    assert line.isprintable()


@pytest.mark.parametrize("name", WITHIN)
def test_what_breaks_an_association_is_one_line(
    listener: DicomListener, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    sent, words = WITHIN[name]
    for _ in range(3):
        say(listener.port, request(), sent)
    wait_until(lambda: lines(caplog))
    [line] = lines(caplog)
    assert line.startswith("connection from 127.0.0.1: ")
    assert words in line


@pytest.mark.parametrize("more", [b"", b"\4\0", pdu(4, bytes(8), 200)], ids=["nothing", "half a head", "half a PDU"])
def test_what_the_node_cuts_within_a_message_says_by_which_limit(
    listener: DicomListener, caplog: pytest.LogCaptureFixture, more: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as peer, suppress(ConnectionError):
        peer.sendall(request())
        peer.recv(4096)
        peer.sendall(command(0, element(0x0100, b"\x30\0")) + more)
        peer.recv(4096)  # the node aborts, or closes
        wait_until(lambda: lines(caplog))
    words = "no whole PDU came for 1 s (dicom.idle_s) within a message, of which nothing is kept: closed"
    assert lines(caplog) == [f"connection from 127.0.0.1: {words}."]


def test_what_is_orderly_is_not_told(listener: DicomListener, caplog: pytest.LogCaptureFixture) -> None:
    socket.create_connection(("127.0.0.1", listener.port)).close()
    say(listener.port, request(), pdu(5, bytes(4)))
    with socket.create_connection(("127.0.0.1", listener.port)) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
    say(listener.port, b"\x99" * 300)
    wait_until(lambda: lines(caplog))
    assert len(lines(caplog)) == 1
