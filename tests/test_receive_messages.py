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
from msgspec.structs import replace
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlalchemy import Engine, select

from carina.config import Settings
from carina.database import INSTANCE, open_database, upgrade_schema
from carina.receive import messages, part
from carina.receive.listener import DicomListener
from carina.receive.messages import LARGEST_COMMAND, REQUESTS_AHEAD
from carina.receive.part import IN_MEMORY
from carina.receive.store import InstanceStore
from receiving import echo, receiver_settings, rows

LAST = 0x02
COMMAND = 0x01
C_STORE, N_ACTION = 0x0001, 0x0130
STORE, COMMITMENT = 1, 3


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    made = receiver_settings(tmp_path)
    return replace(made, dicom=replace(made.dicom, idle_s=30, instance_mb=40))


@pytest.fixture
def engine(node: Settings) -> Iterator[Engine]:
    made = open_database(node.node.database)
    upgrade_schema(made)
    yield made
    made.dispose()


@pytest.fixture
def listener(node: Settings, engine: Engine) -> Iterator[DicomListener]:
    made = DicomListener(InstanceStore(node, engine))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def associate(listener: DicomListener) -> Iterator[Callable[[], Association]]:
    made: list[Association] = []

    def one() -> Association:
        sender = AE(ae_title="CT1")
        sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        sender.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
        made.append(sender.associate("127.0.0.1", listener.port, ae_title="CARINA"))
        assert made[-1].is_established
        made[-1]._reactor_checkpoint.clear()  # what is answered waits for the test
        return made[-1]

    yield one
    for association in made:
        association.abort()


def ct(uid: str, bytes_of_pixels: int) -> bytes:
    """A data set with so many bytes of pixels."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, uid, "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2", "1.2.3"
    dataset.BitsAllocated = 16
    dataset.add_new("PixelData", "OW", bytes(range(256)) * (bytes_of_pixels // 256))
    return bytes(encode(dataset, False, True))


def request(uid: str, field: int = C_STORE, sop_class: str = CTImageStorage, number: int = 1) -> bytes:
    """A command set (PS3.7 E.1) that says that a data set follows."""
    command = Dataset()
    command.AffectedSOPClassUID, command.CommandField, command.MessageID = sop_class, field, number
    command.Priority, command.CommandDataSetType, command.AffectedSOPInstanceUID = 0, 1, uid
    elements = bytes(encode(command, True, True))
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def say(association: Association, content: bytes, flags: int, context: int = STORE) -> None:
    """Send a fragment in a PDU of its own (PS3.8 9.3.5)."""
    item = struct.pack(">LBB", len(content) + 2, context, flags) + content
    connection = association.dul.socket.socket
    if connection is None:
        raise ConnectionError("the listener has ended the association")
    connection.sendall(struct.pack(">BBL", 4, 0, len(item)) + item)


def say_all(association: Association, content: bytes, flags: int = 0, context: int = STORE) -> None:
    pieces = [content[start : start + 100_000] for start in range(0, len(content), 100_000)]
    for piece in pieces[:-1]:
        say(association, piece, flags, context)
    say(association, pieces[-1], flags | LAST, context)


def until(happens: Callable[[], bool]) -> bool:
    """Whether it happens, waited for generously."""
    for _ in range(600):
        if happens():
            return True
        time.sleep(0.05)
    return False


def parts(node: Settings) -> list[Path]:
    return list(Path(node.node.folder, "incoming", ".parts").glob("*"))


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


def element(number: int, value: bytes, length: int | None = None) -> bytes:
    """An element of a command set."""
    return struct.pack("<HHI", 0, number, len(value) if length is None else length) + value


ECHO = element(0x0002, b"1.2.840.10008.1.1\0") + element(0x0110, b"\1\0")
NO_DATA = element(0x0800, b"\1\1")

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
