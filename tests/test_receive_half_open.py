"""Connections that ask for nothing: an address that has taken them all makes room for others, and keeps its share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore
from carina.receive.transport import MOST_HALF_OPEN
from receiving import echo, receiver_settings

MOST = 8


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = receiver_settings(tmp_path)
    return replace(made, dicom=replace(made.dicom, associations=MOST))


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    made = DicomListener(InstanceStore(node, engine))
    made.start()
    yield made
    made.stop()


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
        taken = [silent(listener.port, "127.0.0.2", kept) for _ in range(MOST)]
        until(lambda: half_open(listener) == MOST)
        assert echo(listener.port)
        assert is_closed(taken[0])
        assert half_open(listener) == MOST - 1
        until(lambda: alive(listener) == MOST - 1)  # the echo's has ended
        more = silent(listener.port, "127.0.0.2", kept)  # the free one is for whoever comes
        until(lambda: half_open(listener) == MOST)
        assert is_closed(silent(listener.port, "127.0.0.2", kept)), "nobody makes room for itself"
        assert more.fileno() >= 0
    words = "connection from 127.0.0.2: 8 of 8 connections (dicom.associations) ask for nothing: the oldest is closed."
    assert [one for one in messages(caplog) if "the oldest" in one] == [words]


def test_an_address_keeps_its_share(listener: DicomListener) -> None:
    """Four addresses with a quarter each have taken all there is, and a fifth waits for one of them."""
    with ExitStack() as kept:
        for number in range(MOST):
            silent(listener.port, f"127.0.0.{2 + number % MOST_HALF_OPEN}", kept)
        until(lambda: half_open(listener) == MOST)
        assert is_closed(silent(listener.port, "127.0.0.9", kept))
        assert half_open(listener) == MOST


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


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)
