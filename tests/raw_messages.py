"""Messages to a listener, sent fragment by fragment, for tests of what it makes of them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import StorageCommitmentPushModel

from carina.config import Settings
from carina.receive.listener import DicomListener
from receiving import receiver_settings
from waiting import wait_until

LAST = 0x02
COMMAND = 0x01
C_STORE, N_ACTION = 0x0001, 0x0130
STORE, COMMITMENT = 1, 3


def node_for_messages(folder: Path) -> Settings:
    made = receiver_settings(folder)
    return replace(made, dicom=replace(made.dicom, idle_s=30, instance_mb=40))


def associating(listener: DicomListener) -> Iterator[Callable[[], Association]]:
    """Makes associations, whose answers wait for the test."""
    made: list[Association] = []

    def one() -> Association:
        sender = AE(ae_title="CT1")
        sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        sender.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
        made.append(sender.associate("127.0.0.1", listener.port, ae_title="CARINA"))
        assert made[-1].is_established
        made[-1]._reactor_checkpoint.clear()
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
    """That it happens, once it has."""
    wait_until(happens)
    return True


def parts(node: Settings) -> list[Path]:
    return list(Path(node.node.folder, "incoming", ".parts").glob("*"))


def element(number: int, value: bytes, length: int | None = None) -> bytes:
    """An element of a command set."""
    return struct.pack("<HHI", 0, number, len(value) if length is None else length) + value


NO_DATA = element(0x0800, b"\1\1")
