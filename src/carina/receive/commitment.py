"""Storage commitment as its provider: who sent us instances asks whether we keep them (PS3.4 annex J)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset
from sqlalchemy import Engine, Row, select

from carina.config import Settings
from carina.database import INSTANCE
from carina.database.intact import is_intact
from carina.deliver.answers import CLASS_CONFLICT
from carina.dicom.elements import Element, ElementReader, Encoding
from carina.dicom.sources import Encoded
from carina.dicom.uids import is_uid
from carina.dicom.values import LONGEST_VALUE, tag_of
from carina.errors import BadSeries
from carina.receive.durability import assure
from carina.receive.instance import NotAccepted

PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
FAILURE_REASONS = {
    NO_SUCH_INSTANCE: "it is not here, its file is damaged, or it came by a source of another project",
    CLASS_CONFLICT: "it is here, and of another SOP class than the request says",
    PROCESSING_FAILURE: "its file can't be put on the disk for good",
}
"""Why the node does not commit itself to an instance (PS3.3 C.14.1.1)."""

INVALID_ARGUMENT = 0x0115

ALL_THERE, SOME_MISSING = 1, 2
"""Event types of a report (PS3.4 table J.3.3-1)."""

UIDS_AT_ONCE = 500
"""UIDs of one question to the database."""

Reference = tuple[str, str]
"""A SOP class and a SOP instance."""

_TRANSACTION_UID, _REFERENCED = tag_of("TransactionUID"), tag_of("ReferencedSOPSequence")
_SOP_CLASS, _SOP_INSTANCE = tag_of("ReferencedSOPClassUID"), tag_of("ReferencedSOPInstanceUID")


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """What a peer asks about, each once, by a source of ``project``."""

    transaction_uid: str
    references: tuple[Reference, ...]
    project: str


def read_request(asked: bytes, project: str, *, is_implicit: bool = False) -> CommitmentRequest:
    """The action information of an N-ACTION (PS3.4 table J.3.2-1), as it came, in little endian.

    Twenty thousand instances are read in a tenth of a second here, in more than one by pydicom.

    Raises:
        NotAccepted: it lacks what it must say, or can't be followed.
    """
    encoded = Encoded("a request for storage commitment", asked)
    try:
        transaction_uid, references = _said_in(encoded, Encoding(is_implicit=is_implicit, order="<"))
    except BadSeries as error:
        raise _invalid("its elements can't be followed") from error
    if not is_uid(transaction_uid):
        raise _invalid("its Transaction UID (0008,1195) is none")
    if not references:
        raise _invalid("its Referenced SOP Sequence (0008,1199) names no instance")
    if not all(map(all, references)):
        raise _invalid("an item of its Referenced SOP Sequence (0008,1199) lacks its SOP class or instance")
    return CommitmentRequest(transaction_uid=transaction_uid, references=references, project=project)


def _said_in(encoded: Encoded, encoding: Encoding) -> tuple[str, tuple[Reference, ...]]:
    """The Transaction UID and what is referred to, each once."""
    transaction_uid, references = "", dict[Reference, None]()
    reader = ElementReader(encoded, encoding)
    for element in reader.elements(0):
        if element.tag == _TRANSACTION_UID:
            transaction_uid = _uid_of(encoded, element)
        elif element.tag == _REFERENCED:
            references |= dict.fromkeys(_reference(encoded, encoding, *item) for item in reader.items(element))
    return transaction_uid, tuple(references)


def _reference(encoded: Encoded, encoding: Encoding, start: int, end: int) -> Reference:
    found = {one.tag: one for one in ElementReader(encoded, encoding).elements(start, end)}
    return _uid_of(encoded, found.get(_SOP_CLASS)), _uid_of(encoded, found.get(_SOP_INSTANCE))


def _uid_of(encoded: Encoded, element: Element | None) -> str:
    """An element's only value; empty where it has none, or several."""
    if element is None or element.size is None:
        return ""
    value = encoded.read(element.start, min(element.size, LONGEST_VALUE)).decode("ascii", "replace").strip(" \0")
    return "" if "\\" in value else value


def failure_reasons(settings: Settings, engine: Engine, request: CommitmentRequest) -> list[int | None]:
    """Why the node does not commit itself to each instance that a peer asked about; None: it is here, row and file.

    What came by the sources of other projects than the request's is not here: nobody learns of it.
    """
    folder = Path(settings.node.folder)
    others = [name for name, source in settings.sources.items() if source.project != request.project]
    reasons: list[int | None] = []
    for first in range(0, len(request.references), UIDS_AT_ONCE):
        references = request.references[first : first + UIDS_AT_ONCE]
        rows = _rows(engine, references, others)
        reasons += [_failure_reason(folder, sop_class, rows.get(instance, ())) for sop_class, instance in references]
    return reasons


def report_on(request: CommitmentRequest, reasons: Sequence[int | None]) -> tuple[int, Dataset]:
    """The event type and the report for what a peer asked about (PS3.4 table J.3.3-1), by its failure reasons."""
    there, failed = [], []
    for (sop_class, instance), reason in zip(request.references, reasons, strict=True):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        if reason is None:
            there.append(item)
        else:
            item.FailureReason = reason
            failed.append(item)
    report = Dataset()
    report.TransactionUID = request.transaction_uid
    if there:
        report.ReferencedSOPSequence = there
    if failed:
        report.FailedSOPSequence = failed
    return (SOME_MISSING if failed else ALL_THERE), report


def _rows(engine: Engine, references: Sequence[Reference], others: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The rows of instances, but for those of other sources; what is no UID has none."""
    uids = {instance for _, instance in references if is_uid(instance)}
    wanted = select(INSTANCE).where(INSTANCE.c.sop_instance_uid.in_(uids), INSTANCE.c.source.not_in(others))
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    with engine.connect() as connection:
        for row in connection.execute(wanted):
            found[row.sop_instance_uid].append(row)
    return found


def _failure_reason(folder: Path, sop_class: str, rows: Sequence[Row[Any]]) -> int | None:
    """Why the node does not commit itself to an instance; None where it does."""
    of_class = [row for row in rows if row.sop_class_uid == sop_class]
    if rows and not of_class:
        return CLASS_CONFLICT
    try:
        is_here = any(is_intact(folder / row.path, row) if row.flushed else assure(folder, row) for row in of_class)
    except OSError:
        return PROCESSING_FAILURE
    return None if is_here else NO_SUCH_INSTANCE


def _invalid(words: str) -> NotAccepted:
    return NotAccepted(INVALID_ARGUMENT, "receive.commitment", f"a request for storage commitment is refused: {words}.")
