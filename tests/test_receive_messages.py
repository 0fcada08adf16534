"""Messages of any size: what is to be stored goes to the disk as it comes, everything else stays small."""

from __future__ import annotations

import logging
import resource
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import Engine, select

from carina.config import Settings
from carina.database import INSTANCE
from carina.receive import messages, part
from carina.receive.listener import DicomListener
from carina.receive.messages import LARGEST_COMMAND, REQUESTS_AHEAD
from carina.receive.part import IN_MEMORY
from carina.receive.store import InstanceStore
from raw_messages import (
    COMMAND,
    COMMITMENT,
    LAST,
    N_ACTION,
    NO_DATA,
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


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("pixels", [IN_MEMORY // 2, IN_MEMORY * 2, IN_MEMORY * 9])
def test_what_is_stored_is_what_was_sent(
    node: Settings, engine: Engine, associate: Callable[[], Association], pixels: int
) -> None:
    data, association = ct("1.2.3.4", pixels), associate()
    say(association, request("1.2.3.4"), COMMAND | LAST)
    say_all(association, data)
    assert until(lambda: rows(engine) == 1)
    with engine.connect() as connection:
        row = connection.execute(select(INSTANCE)).one()
    assert until(lambda: not parts(node))
    file = Path(node.node.folder, row.path)
    assert (row.bytes, file.read_bytes()[-len(data) :]) == (len(data), data)
    read = dcmread(file)
    assert (read.file_meta.TransferSyntaxUID, read.file_meta.MediaStorageSOPInstanceUID) == (
        ExplicitVRLittleEndian,
        "1.2.3.4",
    )


def test_data_sets_of_any_size_take_no_memory_and_leave_nothing_when_they_break_off(
    node: Settings, listener: DicomListener, engine: Engine, associate: Callable[[], Association]
) -> None:
    before = peak_kb()
    piece, associations = bytes(100_000), [associate() for _ in range(3)]
    for number, association in enumerate(associations):
        say(association, request(f"1.2.3.{number}"), COMMAND | LAST)
        for _ in range(300):
            say(association, piece, 0)
    assert until(lambda: sum(one.stat().st_size for one in parts(node)) > 89_000_000)
    assert peak_kb() - before < 50_000
    for association in associations:
        association.dul.socket.socket.close()
    assert until(lambda: not parts(node))
    assert echo(listener.port)
    assert rows(engine) == 0


def test_a_data_set_over_the_limit_ends_the_association(
    node: Settings, engine: Engine, associate: Callable[[], Association], caplog: pytest.LogCaptureFixture
) -> None:
    association = associate()
    say(association, request("1.2.3.4"), COMMAND | LAST)
    with suppress(OSError):
        for _ in range(2000):
            say(association, bytes(100_000), 0)
    assert until(lambda: not parts(node))
    assert "a data set of over 40 MB (dicom.instance_mb): association aborted" in caplog.text
    assert rows(engine) == 0


def test_requests_that_wait_are_counted(
    node: Settings,
    listener: DicomListener,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(InstanceStore, "accept_part", lambda *_: time.sleep(3))
    association, data = associate(), ct("1.2.3.4", IN_MEMORY * 2)
    with suppress(OSError):
        for number in range(4 * REQUESTS_AHEAD):
            say(association, request(f"1.2.3.{number}", number=number + 1), COMMAND | LAST)
            say_all(association, data)
    assert until(lambda: "requests are sent before the first is answered: association aborted" in caplog.text)
    assert until(lambda: echo(listener.port) and len(parts(node)) <= 1)


@pytest.mark.parametrize("flags", [COMMAND, 0])
def test_what_is_not_to_be_stored_stays_small(
    listener: DicomListener,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    flags: int,
) -> None:
    monkeypatch.setattr(messages, "LARGEST_OTHER", 1_000_000)
    association = associate()
    if not flags:
        say(association, request("1.2.3", N_ACTION, StorageCommitmentPushModel), COMMAND | LAST, COMMITMENT)
    with suppress(OSError):
        for _ in range(1000):
            say(association, bytes(LARGEST_COMMAND // 2), flags, COMMITMENT)
    words = "a command set of over 65536 bytes" if flags else "a message of over 1 MB"
    assert until(lambda: f"{words}: association aborted" in caplog.text)
    assert echo(listener.port)


def test_a_disk_that_fills_up_meanwhile_is_said_and_nothing_is_left(
    node: Settings, engine: Engine, associate: Callable[[], Association], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "LOOKS_FOR_ROOM", 200_000)
    association, data = associate(), ct("1.2.3.4", IN_MEMORY * 9)
    say(association, request("1.2.3.4"), COMMAND | LAST)
    say(association, data[:100_000], 0)
    say(association, data[100_000:200_000], 0)
    assert until(lambda: len(parts(node)) == 1)
    usage = shutil.disk_usage(node.node.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=-1))
    say_all(association, data[200_000:])
    assert until(lambda: not association.dimse.msg_queue.empty())
    assert association.dimse.get_msg()[1].Status == 0xA700
    assert not parts(node)
    assert rows(engine) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sop_class": "../../x"}, "is no UID"),
        ({"uid": "1." * 40}, "must not exceed 64"),
        ({"uid": "1.2.3.5"}, "another instance"),
    ],
)
def test_what_cannot_be_true_leaves_nothing(
    node: Settings,
    engine: Engine,
    associate: Callable[[], Association],
    caplog: pytest.LogCaptureFixture,
    change: dict[str, str],
    words: str,
) -> None:
    caplog.set_level(logging.WARNING)
    association = associate()
    say(association, request(**({"uid": "1.2.3.4"} | change)), COMMAND | LAST)  # type: ignore[arg-type]
    say_all(association, ct("1.2.3.4", IN_MEMORY * 3))
    assert until(lambda: words in caplog.text)
    assert until(lambda: not parts(node))
    assert rows(engine) == 0


ECHO = element(0x0002, b"1.2.840.10008.1.1\0") + element(0x0110, b"\1\0")

BROKEN = {
    "no command field": ECHO + NO_DATA,
    "an unknown command field": element(0x0100, b"\x77\x77") + ECHO + NO_DATA,
    "no word on a data set": element(0x0100, b"\x01\0") + ECHO,
    "an element of 4 GB": element(0x0002, b"1.2", 0xFFFFFFF0),
    "an element without a length": element(0x0002, b"1.2", 0xFFFFFFFF),
    "nothing": b"",
}
"""Command sets that mean nothing."""


def ended(connection: socket.socket) -> bool:
    """Whether the listener ends a conversation."""
    connection.settimeout(60)
    with suppress(OSError):
        while connection.recv(65_536):
            pass
    return True


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", BROKEN)
def test_commands_that_mean_nothing_end_the_association_in_one_line(
    listener: DicomListener, associate: Callable[[], Association], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    association = associate()
    say(association, BROKEN[kind], COMMAND | LAST)
    assert until(lambda: "a message can't be followed (" in caplog.text)
    assert until(lambda: association.dul.socket.socket is None or association.is_aborted)
    assert [one.levelname for one in caplog.records if one.name.startswith("carina.")] == ["WARNING"]
    assert echo(listener.port)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("context", [0, 2, 254])
def test_a_request_with_contexts_that_cannot_be_is_ended_at_once(
    listener: DicomListener, caplog: pytest.LogCaptureFixture, context: int
) -> None:
    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    syntaxes = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    body = struct.pack(">HH", 1, 0) + b"CARINA".ljust(16) + b"CT1".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, bytes([context, 0, 0, 0]) + syntaxes)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    with socket.create_connection(("127.0.0.1", listener.port)) as peer:
        peer.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
        assert ended(peer)
    assert "ended: what came can't be followed (ValueError)" in caplog.text
    assert echo(listener.port)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_cancels_of_nothing_are_passed_over(
    listener: DicomListener, engine: Engine, associate: Callable[[], Association]
) -> None:
    association = associate()
    for number in range(100):
        cancel = element(0x0100, b"\xff\x0f") + element(0x0120, struct.pack("<H", number)) + NO_DATA
        say(association, cancel, COMMAND | LAST)
    say(association, request("1.2.3.4"), COMMAND | LAST)
    say_all(association, ct("1.2.3.4", 512))
    assert until(lambda: rows(engine) == 1)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_request_that_breaks_its_answering_ends_its_association(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise KeyError("a fault of the original")

    monkeypatch.setattr(Association, "_serve_request", breaks)
    made = DicomListener(InstanceStore(node, engine))
    made.start()
    try:
        assert not echo(made.port)
        assert "a request can't be answered (KeyError): aborted" in caplog.text
    finally:
        made.stop()
