"""STOW-RS to a DICOMweb server (PS3.18 section 10.5)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.answers import Answer, Outcome, code_words, dimse_outcome, http_outcome
from carina.deliver.dicomweb import WebAnswer, exchange, first_value, json_values, refused
from carina.deliver.receipt import DeliveryReceipt, Sent, complete, sop_instance_uid

FAILED_SOP_SEQUENCE = "00081198"
FAILURE_REASON = "00081197"
REFERENCED_SOP_INSTANCE_UID = "00081155"
REFERENCED_SOP_SEQUENCE = "00081199"
WARNING_REASON = "00081196"

PARTIAL = {202, 409}
"""Some, or none, of the objects were stored; the answer's data set says which."""


def deliver_by_stow(files: Sequence[Path], name: str, server: DicomwebDestination) -> DeliveryReceipt:
    """Post DICOM files in one request; the answer is read object by object.

    Raises:
        DeliveryFailed: the server can't be reached, refuses, or does not store every object; the message lists those.
    """
    where = server.url.rstrip("/")
    if not files:
        return DeliveryReceipt(destination=name, kind="dicomweb", where=where, sent=())
    response = _post(files, name, server)
    if not response.is_fine and not _is_partial(response):
        raise refused(name, server, response)
    sent = tuple(_sent(file, response) for file in files)
    return complete(DeliveryReceipt(destination=name, kind="dicomweb", where=where, sent=sent))


def store_by_stow(file: Path, name: str, server: DicomwebDestination) -> Answer:
    """Post one DICOM file; the server's word on it.

    Raises:
        DeliveryFailed: the server can't be reached.
    """
    response = _post([file], name, server)
    if response.is_fine or _is_partial(response):
        return _answer(sop_instance_uid(file), response)
    words = f"answered {code_words(response.code)}"
    return Answer(outcome=http_outcome(response.code), status=response.code, note=words)


def echo_server(name: str, server: DicomwebDestination) -> None:
    """Ask for one study (QIDO-RS), which every DICOMweb server answers.

    Raises:
        DeliveryFailed: the server can't be reached or refuses.
    """
    response = exchange(name, server, "/studies?limit=1")
    if not response.is_fine:
        raise refused(name, server, response)


def _post(files: Sequence[Path], name: str, server: DicomwebDestination) -> WebAnswer:
    boundary = f"carina-{secrets.token_hex(16)}"
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return exchange(name, server, "/studies", _body(files, boundary), kind)


def _body(files: Sequence[Path], boundary: str) -> bytes:
    parts = []
    for file in files:
        parts += [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), file.read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _is_partial(response: WebAnswer) -> bool:
    return response.code in PARTIAL and bool(response.content)


def _sent(file: Path, response: WebAnswer) -> Sent:
    uid = sop_instance_uid(file)
    answer = _answer(uid, response)
    stored = answer.outcome is Outcome.STORED
    return Sent(sop_instance_uid=uid, file=file.name, stored=stored, note=answer.note)


def _answer(uid: str, response: WebAnswer) -> Answer:
    """What a response says of one object."""
    groups = response.content if isinstance(response.content, list) else [response.content]
    failed = _items(groups, FAILED_SOP_SEQUENCE)
    stored = _items(groups, REFERENCED_SOP_SEQUENCE)
    if uid in failed:
        reason = first_value(failed[uid], FAILURE_REASON)
        if isinstance(reason, int):
            return Answer(outcome=dimse_outcome(reason), status=reason, note=f"failure reason 0x{reason:04X}")
        return Answer(outcome=Outcome.LATER, status=response.code, note="refused without a reason")
    if uid not in stored:
        return Answer(outcome=Outcome.UNKNOWN, status=response.code, note="the answer does not mention it")
    warning = first_value(stored[uid], WARNING_REASON)
    note = f"warning reason 0x{warning:04X}" if isinstance(warning, int) and warning else ""
    return Answer(outcome=Outcome.STORED, status=response.code, note=note)


def _items(groups: Sequence[Any], sequence: str) -> dict[str, Mapping[str, Any]]:
    items = (item for group in groups for item in json_values(group, sequence))
    return {str(first_value(item, REFERENCED_SOP_INSTANCE_UID)): item for item in items}
