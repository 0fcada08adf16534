"""Connections that ask for nothing, or never finish asking: they end in time, and make room for others."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive import listener as receiving_side
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.receive.transport import MOST_HALF_OPEN
from carina.web_settings import TlsSettings
from certificates import self_signed
from receiving import echo, listening, receiver_settings
from waiting import wait_until

MOST = 8


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = receiver_settings(tmp_path)
    return replace(made, dicom=replace(made.dicom, associations=MOST))


@pytest.fixture
def listener(node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[DicomListener]:
    monkeypatch.setattr(receiving_side, "FIRST_WORD_S", 600)
    with listening(node, engine) as made:
        yield made


def silent(port: int, address: str, kept: ExitStack) -> socket.socket:
    """A connection from an address of this machine that asks for nothing."""
    made = kept.enter_context(socket.socket())
    made.settimeout(60)
    made.bind((address, 0))
    made.connect(("127.0.0.1", port))
    return made


def is_closed(connection: socket.socket) -> bool:
    return connection.recv(1) == b""


def test_an_address_that_has_taken_every_connection_makes_room_for_others(
    listener: DicomListener, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as kept:
        taken = []
        for number in range(MOST):  # one after the other: the oldest is the one that the node saw first
            taken.append(silent(listener.port, "127.0.0.2", kept))
            wait_until(lambda most=number + 1: half_open(listener) == most)  # type: ignore[misc]
        assert echo(listener.port)
        assert is_closed(taken[0])
        assert half_open(listener) == MOST - 1
        wait_until(lambda: alive(listener) == MOST - 1)  # the echo's has ended
        more = silent(listener.port, "127.0.0.2", kept)  # the free one is for whoever comes
        wait_until(lambda: half_open(listener) == MOST)
        assert is_closed(silent(listener.port, "127.0.0.2", kept)), "nobody makes room for itself"
        assert more.fileno() >= 0
    words = "connection from 127.0.0.2: 8 of 8 connections (dicom.associations) ask for nothing: the oldest is closed."
    assert [one for one in messages(caplog) if "the oldest" in one] == [words]


def test_an_address_keeps_its_share(listener: DicomListener) -> None:
    """Four addresses with a quarter each have taken all there is, and a fifth waits for one of them."""
    with ExitStack() as kept:
        for number in range(MOST):
            silent(listener.port, f"127.0.0.{2 + number % MOST_HALF_OPEN}", kept)
        wait_until(lambda: half_open(listener) == MOST)
        assert is_closed(silent(listener.port, "127.0.0.9", kept))
        assert half_open(listener) == MOST


DRIBBLED = {
    "request": b"\1\0\0\0\xff\0" + bytes(1000),
    "head": b"\1\0\0",
    "no association's": b"\x99\0\0\0\0\1" * 200,
}


@pytest.mark.parametrize("sent", DRIBBLED.values(), ids=list(DRIBBLED))
def test_a_request_that_never_ends_is_ended(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(receiving_side, "FIRST_WORD_S", 0.5)
    patient = DicomListener(InstanceStore(replace(node, dicom=replace(node.dicom, idle_s=600)), engine))
    patient.start()
    try:
        dribble(patient.port, sent)
        wait_until(lambda: not alive(patient))
    finally:
        patient.stop()


def test_a_tls_handshake_that_never_ends_is_ended(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor does a handshake that took its time leave the full time for what follows it."""
    self_signed(tmp_path, "n")
    monkeypatch.setattr(receiving_side, "FIRST_WORD_S", 0.5)
    tls = TlsSettings(certificate=f"{tmp_path}/n.crt", key=f"{tmp_path}/n.key")
    patient = DicomListener(InstanceStore(replace(node, dicom=replace(node.dicom, idle_s=600, tls=tls)), engine))
    patient.start()
    try:
        dribble(patient.port, b"\x16\3\1\1\0" + bytes(1000))
        knows_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        knows_nobody.check_hostname, knows_nobody.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", patient.port), timeout=60) as plain:
            dribble_on(knows_nobody.wrap_socket(plain), DRIBBLED["request"])
        wait_until(lambda: half_open(patient) >= 0 and not alive(patient))
    finally:
        patient.stop()


def dribble(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        dribble_on(peer, sent)


def dribble_on(peer: socket.socket, sent: bytes) -> None:
    """Send a byte at a time until the connection ends."""
    with suppress(ConnectionError, ssl.SSLError):
        for number in range(len(sent)):
            peer.settimeout(0.02)
            peer.sendall(sent[number : number + 1])
            with suppress(TimeoutError):
                if not peer.recv(100):
                    return
        peer.settimeout(60)
        while peer.recv(100):
            pass


def half_open(listener: DicomListener) -> int:
    server = listener._server
    assert server is not None
    return sum(one.requestor.primitive is None for one in server.open_connections) if not server._starting else -1


def alive(listener: DicomListener) -> int:
    server = listener._server
    assert server is not None
    return sum(one.is_alive() for one in server.open_connections)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]
