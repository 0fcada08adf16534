"""C-STORE to a DICOM node, and C-ECHO to see whether it answers (PS3.4 annexes B and A)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from carina.config import DicomDestination
from carina.deliver.receipt import DeliveryReceipt, Sent, complete, unreachable

SUCCESS = 0x0000

STORED_WITH_WARNING = {0xB000: "elements coerced", 0xB006: "elements discarded", 0xB007: "data set does not match"}
"""Warning statuses: the object is stored (PS3.4 table B.2-1)."""

FAILURES = {
    0xA700: "out of resources",
    0xA900: "data set does not match its SOP class",
    0xC000: "can't understand the data set",
    0x0110: "processing failure",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
}
"""Failure statuses, by their value without the free low bits (A7xx, A9xx, Cxxx)."""

LAST_PORT = 65535

UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}


def deliver_by_store(files: Sequence[Path], name: str, peer: DicomDestination) -> DeliveryReceipt:
    """Send DICOM files over one association; the status of each is looked at.

    Raises:
        DeliveryFailed: the peer can't be reached, or does not store every object; the message lists those.
    """
    if not files:
        return DeliveryReceipt(destination=name, kind="dicom", where=address(peer), sent=())
    contexts = _contexts(files)
    with _associated(name, peer, contexts) as association:
        sent = tuple(_send(association, file) for file in files)
    return complete(DeliveryReceipt(destination=name, kind="dicom", where=address(peer), sent=sent))


def echo_node(name: str, peer: DicomDestination) -> None:
    """Send a C-ECHO.

    Raises:
        DeliveryFailed: the peer can't be reached, or answers with a failure.
    """
    with _associated(name, peer, [(UID(Verification), [ImplicitVRLittleEndian])]) as association:
        status = association.send_c_echo()
    if "Status" not in status or status.Status != SUCCESS:
        raise unreachable(name, address(peer), f"C-ECHO was answered with {_status_text(status)}")


def address(peer: DicomDestination) -> str:
    """A peer as people write it."""
    return f"{peer.ae_title}@{peer.host}:{peer.port}"


def _contexts(files: Sequence[Path]) -> list[tuple[UID, list[UID]]]:
    """What to propose: each SOP class in its own transfer syntax, uncompressed ones also in Implicit VR."""
    wanted: dict[tuple[UID, UID], None] = {}
    for file in files:
        header = dcmread(file, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        sop_class, syntax = header.SOPClassUID, header.file_meta.TransferSyntaxUID
        wanted[sop_class, syntax] = None
        if syntax in UNCOMPRESSED:
            wanted.update(dict.fromkeys((sop_class, one) for one in sorted(UNCOMPRESSED)))
    return [(sop_class, [syntax]) for sop_class, syntax in wanted]


@contextmanager
def _associated(name: str, peer: DicomDestination, contexts: Sequence[tuple[UID, list[UID]]]) -> Iterator[Association]:
    try:
        association = _associate(peer, contexts)
    except (OSError, ValueError) as error:  # a host that nobody knows; a port or an AE title that can't be
        raise unreachable(name, address(peer), str(error)) from error
    if not association.is_established:
        raise unreachable(name, address(peer), _refusal(association, peer))
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _associate(peer: DicomDestination, contexts: Sequence[tuple[UID, list[UID]]]) -> Association:
    if not 0 < peer.port <= LAST_PORT:
        raise ValueError(f"its port must be 1 to {LAST_PORT}")
    entity = AE(ae_title=peer.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_s
    entity.connection_timeout = peer.timeout_s
    for sop_class, syntaxes in contexts:
        entity.add_requested_context(sop_class, syntaxes)
    return entity.associate(peer.host, peer.port, ae_title=peer.ae_title)


def _refusal(association: Association, peer: DicomDestination) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = getattr(answer, "reason_str", "") or "no reason given"
        return f"it refused the association of {peer.calling_ae_title} ({reason})"
    if association.acceptor.primitive is not None:
        return "it accepts none of the object kinds that were proposed"
    return "nothing answers there"


def _send(association: Association, file: Path) -> Sent:
    """Send one file; the note is set before the risky call, so that no path ends without one."""
    dataset = dcmread(file)
    uid = str(dataset.SOPInstanceUID)
    note = "the association ended before"
    stored = False
    if association.is_established:
        try:
            status = association.send_c_store(dataset)
        except ValueError:
            note = f"no accepted presentation context for {UID(dataset.SOPClassUID).name}"
        except RuntimeError as error:
            note = str(error)
        else:
            stored = _is_stored(status)
            note = "" if stored and status.Status == SUCCESS else _status_text(status)
    return Sent(sop_instance_uid=uid, file=file.name, stored=stored, note=note)


def _is_stored(status: Dataset) -> bool:
    return "Status" in status and (status.Status == SUCCESS or status.Status in STORED_WITH_WARNING)


def _status_text(status: Any) -> str:
    if "Status" not in status:
        return "no answer in time"
    value = int(status.Status)
    known = STORED_WITH_WARNING | FAILURES
    general = value & 0xF000 if value & 0xF000 == 0xC000 else value & 0xFF00
    words = known.get(value) or known.get(general) or "failure"
    comment = str(status.get("ErrorComment", ""))
    return f"status 0x{value:04X}, {words}" + (f", {comment}" if comment else "")
