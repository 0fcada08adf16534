"""Damaged conversations by seed: what a real sender says, changed on the way, harms neither listener nor folder."""

from __future__ import annotations

import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.listener import DicomListener
from carina.receive.store import FLUSHES_AT_ONCE
from carina.testing.hostile import damage
from received_files import small_ct
from receiving import echo, listening, receiver_settings, rows

SEEDS = range(90)
LOOPBACK = "127.0.0.1"


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = receiver_settings(tmp_path)
    return msgspec.structs.replace(made, dicom=msgspec.structs.replace(made.dicom, idle_s=1))


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    with listening(node, engine) as made:
        yield made


def record(port: int, folder: Path) -> list[bytes]:
    """The PDUs that a sender of two small slices says to the listener at a port."""
    said = bytearray()

    def pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with suppress(OSError):
            while part := source.recv(65_536):
                kept += part
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    with socket.create_server((LOOPBACK, 0)) as between:
        sender = AE(ae_title="CT1")
        sender.add_requested_context(CTImageStorage)
        threads: list[threading.Thread] = []

        def relay() -> None:
            near, _ = between.accept()
            far = socket.create_connection((LOOPBACK, port))
            pairs = ((near, far, said), (far, near, bytearray()))
            threads.extend(threading.Thread(target=pass_on, args=pair) for pair in pairs)
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            near.close()
            far.close()

        relaying = threading.Thread(target=relay)
        relaying.start()
        association = sender.associate(LOOPBACK, between.getsockname()[1], ae_title="CARINA")
        for number in range(2):
            (folder / "one.dcm").write_bytes(small_ct(f"1.2.3.{number}", rows=40))
            assert association.send_c_store(dcmread(folder / "one.dcm")).Status == 0
        association.release()
        relaying.join(30)
    return split(bytes(said))


def split(said: bytes) -> list[bytes]:
    pdus = []
    while len(said) >= 6:
        size = 6 + struct.unpack_from(">L", said, 2)[0]
        pdus.append(said[:size])
        said = said[size:]
    return pdus


def damaged(pdus: list[bytes], rng: random.Random) -> bytes:
    """The conversation with one PDU changed, mostly one after the request; half the time its length is made right."""
    changed = list(pdus)
    place = rng.choice([0, *range(1, len(pdus)), *range(1, len(pdus))])
    content = bytearray(changed[place][6:])
    for _ in range(rng.choice((1, 1, 3, 10))):
        damage(content, rng)
    length = len(content) if rng.random() < 0.7 else rng.choice((0, 1, 5, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
    changed[place] = changed[place][:1] + b"\0" + struct.pack(">L", length) + bytes(content)
    if rng.random() < 0.2:
        rng.shuffle(changed)
    return b"".join(changed)


def say(port: int, content: bytes) -> None:
    """Send it all, whatever is answered, and wait until the listener has ended the conversation."""
    with socket.create_connection((LOOPBACK, port), timeout=30) as peer:
        with suppress(OSError):
            peer.sendall(content)
            peer.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while peer.recv(65_536):
                pass


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_damaged_conversations_harm_nothing(
    listener: DicomListener, engine: Engine, node: Settings, tmp_path: Path
) -> None:
    pdus = record(listener.port, tmp_path)
    assert [pdu[0] for pdu in (pdus[0], pdus[-1])] == [1, 5]
    assert rows(engine) == 2
    before, threads = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, threading.active_count()
    for seed in SEEDS:
        say(listener.port, damaged(pdus, random.Random(seed)))
    assert echo(listener.port)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert threads_end(threads + FLUSHES_AT_ONCE)
    assert len(files_below(Path(node.node.folder, "incoming"))) == rows(engine)
    assert {file.name.partition("-")[0] for file in tmp_path.iterdir()} == {"node", "n.sqlite", "one.dcm"}


def threads_end(most: int) -> bool:
    """Whether no more threads than these are left, after a while."""
    for _ in range(300):
        if threading.active_count() <= most:
            return True
        time.sleep(0.1)
    return False


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
