"""STOW-RS to a DICOMweb server (PS3.18 section 10.5), with the standard library's HTTP client."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.receipt import DeliveryReceipt, Sent, complete, sop_instance_uid, unreachable
from carina.errors import DeliveryFailed

FAILED_SOP_SEQUENCE = "00081198"
FAILURE_REASON = "00081197"
REFERENCED_SOP_INSTANCE_UID = "00081155"
REFERENCED_SOP_SEQUENCE = "00081199"

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
    boundary = f"carina-{secrets.token_hex(16)}"
    request = urllib.request.Request(f"{where}/studies", data=_body(files, boundary), method="POST")
    request.add_header("Content-Type", f'multipart/related; type="application/dicom"; boundary={boundary}')
    answer = _ask(name, server, request)
    sent = tuple(_sent(file, answer) for file in files)
    return complete(DeliveryReceipt(destination=name, kind="dicomweb", where=where, sent=sent))


def echo_server(name: str, server: DicomwebDestination) -> None:
    """Ask for one study (QIDO-RS), which every DICOMweb server answers.

    Raises:
        DeliveryFailed: the server can't be reached or refuses.
    """
    _ask(name, server, urllib.request.Request(f"{server.url.rstrip('/')}/studies?limit=1"))


def _body(files: Sequence[Path], boundary: str) -> bytes:
    parts = []
    for file in files:
        parts += [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), file.read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _ask(name: str, server: DicomwebDestination, request: urllib.request.Request) -> Any:
    """The decoded answer; one that says 'stored in part' is an answer too."""
    if not server.url.startswith(("http://", "https://")):
        raise unreachable(name, server.url, "its URL must start with http:// or https://")
    request.add_header("Accept", "application/dicom+json")
    if server.token:
        request.add_header("Authorization", f"Bearer {server.token}")
    try:
        with urllib.request.urlopen(request, timeout=server.timeout_s) as answer:
            return _decode(answer.read())
    except urllib.error.HTTPError as error:
        content = _decode(error.read())
        if error.code in PARTIAL and content:
            return content
        raise DeliveryFailed(
            "delivery.refused", f"{name} ({server.url}) answered {error.code} {error.reason}: check its URL and token."
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise unreachable(name, server.url, str(getattr(error, "reason", error))) from error


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _sent(file: Path, answer: Any) -> Sent:
    uid = sop_instance_uid(file)
    groups = answer if isinstance(answer, list) else [answer]
    failed = _items(groups, FAILED_SOP_SEQUENCE)
    stored = _items(groups, REFERENCED_SOP_SEQUENCE)
    if uid in failed:
        reason = _first(failed[uid], FAILURE_REASON)
        note = f"failure reason 0x{reason:04X}" if isinstance(reason, int) else "refused without a reason"
        return Sent(sop_instance_uid=uid, file=file.name, stored=False, note=note)
    if uid not in stored:
        return Sent(sop_instance_uid=uid, file=file.name, stored=False, note="the answer does not mention it")
    return Sent(sop_instance_uid=uid, file=file.name, stored=True)


def _items(groups: Sequence[Any], sequence: str) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for group in groups:
        for item in (group or {}).get(sequence, {}).get("Value", []):
            found[str(_first(item, REFERENCED_SOP_INSTANCE_UID))] = item
    return found


def _first(item: Mapping[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value", [])
    return values[0] if values else None
