"""C-STORE to a DICOM node, and C-ECHO to see whether it answers (PS3.4 annexes B and A)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from carina.config import DicomDestination
from carina.deliver.answers import (
    CLASS_NOT_SUPPORTED,
    SUCCESS,
    Answer,
    Outcome,
    comment_of,
    dimse_outcome,
    status_words,
)
from carina.deliver.association import address, associated
from carina.deliver.identity import identity_of
from carina.deliver.receipt import DeliveryReceipt, Sent, complete, sop_instance_uid, unreachable
from carina.errors import reason_of

UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}

ECHO_CONTEXT = (Verification, (ImplicitVRLittleEndian,))
"""Proposed beside everything else, so that a peer that accepts nothing of the rest still takes the association."""

NO_ANSWER = "no answer"


def deliver_by_store(files: Sequence[Path], name: str, peer: DicomDestination) -> DeliveryReceipt:
    """Send DICOM files over one association; the status of each is looked at.

    Raises:
        DeliveryFailed: the peer can't be reached, or does not store every object; the message lists those.
    """
    if not files:
        return DeliveryReceipt(destination=name, kind="dicom", where=address(peer), sent=())
    with storing_by_association(files, name, peer) as session:
        sent = tuple(_sent(file, session.store(file)) for file in files)
    return complete(DeliveryReceipt(destination=name, kind="dicom", where=address(peer), sent=sent))


def echo_node(name: str, peer: DicomDestination) -> None:
    """Send a C-ECHO.

    Raises:
        DeliveryFailed: the peer can't be reached, or answers with a failure.
    """
    with associated(name, peer, [ECHO_CONTEXT]) as association:
        status = association.send_c_echo()
    if "Status" not in status or status.Status != SUCCESS:
        raise unreachable(name, address(peer), f"C-ECHO was answered with {_answer(status).note}")


@dataclass(frozen=True, kw_only=True)
class StoreSession:
    """An association on which objects are stored one by one."""

    association: Association

    @property
    def is_open(self) -> bool:
        """Whether another object can be sent on it."""
        return bool(self.association.is_established)

    def store(self, file: Path) -> Answer:
        """Send one file; the answer is set before the risky call, so that no path ends without one."""
        answer = Answer(outcome=Outcome.UNKNOWN, note="the association ended before")
        if self.is_open:
            try:
                dataset = dcmread(file)
            except (OSError, EOFError) as error:
                why = reason_of(error) if isinstance(error, OSError) else type(error).__name__
                return Answer(outcome=Outcome.NEVER, note=f"{file.name} can't be read whole ({why})")
            try:
                answer = _answer(self.association.send_c_store(dataset))
            except ValueError:
                note = f"no accepted presentation context for {UID(dataset.SOPClassUID).name}"
                answer = Answer(outcome=Outcome.NEVER, status=CLASS_NOT_SUPPORTED, note=note)
            except RuntimeError:
                return answer
        return answer


@contextmanager
def storing_by_association(files: Sequence[Path], name: str, peer: DicomDestination) -> Iterator[StoreSession]:
    """A session on which these files can be sent.

    Raises:
        DeliveryFailed: the peer can't be reached or refuses.
    """
    with associated(name, peer, [*_contexts(files), ECHO_CONTEXT]) as association:
        yield StoreSession(association=association)


def _contexts(files: Sequence[Path]) -> list[tuple[UID, list[UID]]]:
    """What to propose: each SOP class in its own transfer syntax, uncompressed ones also in Implicit VR."""
    wanted: dict[tuple[UID, UID], None] = {}
    for file in files:
        identity = identity_of(file)
        sop_class, syntax = UID(identity.sop_class_uid), UID(identity.transfer_syntax_uid)
        wanted[sop_class, syntax] = None
        if syntax in UNCOMPRESSED:
            wanted.update(dict.fromkeys((sop_class, one) for one in sorted(UNCOMPRESSED)))
    return [(sop_class, [syntax]) for sop_class, syntax in wanted]


def _answer(status: Dataset) -> Answer:
    if "Status" not in status:
        return Answer(outcome=Outcome.UNKNOWN, note=NO_ANSWER)
    value = int(status.Status)
    if value == SUCCESS:
        return Answer(outcome=dimse_outcome(value), status=value)
    comment = comment_of(status.get("ErrorComment") or "")
    return Answer(outcome=dimse_outcome(value), status=value, note=status_words(value), comment=comment)


def _sent(file: Path, answer: Answer) -> Sent:
    stored = answer.outcome is Outcome.STORED
    return Sent(sop_instance_uid=sop_instance_uid(file), file=file.name, stored=stored, note=answer.note)
