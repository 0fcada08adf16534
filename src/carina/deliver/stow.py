"""STOW-RS to a DICOMweb server (PS3.18 section 10.5), with the standard library's HTTP client."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.receipt import DeliveryReceipt, Sent, complete, sop_instance_uid, unreachable
from carina.errors import DeliveryFailed

FAILED_SOP_SEQUENCE = "00081198"
FAILURE_REASON = "00081197"
REFERENCED_SOP_INSTANCE_UID = "00081155"
REFERENCED_SOP_SEQUENCE = "00081199"

MOST_BYTES = 2**26
"""More than any answer has; what comes after is not read."""

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
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    answer = _ask(name, server, "/studies", _body(files, boundary), kind)
    sent = tuple(_sent(file, answer) for file in files)
    return complete(DeliveryReceipt(destination=name, kind="dicomweb", where=where, sent=sent))


def echo_server(name: str, server: DicomwebDestination) -> None:
    """Ask for one study (QIDO-RS), which every DICOMweb server answers.

    Raises:
        DeliveryFailed: the server can't be reached or refuses.
    """
    _ask(name, server, "/studies?limit=1")


def _body(files: Sequence[Path], boundary: str) -> bytes:
    parts = []
    for file in files:
        parts += [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), file.read_bytes(), b"\r\n"]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])


def _ask(name: str, server: DicomwebDestination, path: str, data: bytes | None = None, kind: str = "") -> Any:
    """The decoded answer; one that says 'stored in part' is an answer too."""
    if not server.url.startswith(("http://", "https://")):
        raise unreachable(name, server.url, "its URL must start with http:// or https://")
    headers = {"Accept": "application/dicom+json"}
    headers |= {"Content-Type": kind} if kind else {}
    headers |= {"Authorization": f"Bearer {server.token}"} if server.token else {}
    opener = urllib.request.build_opener(_StayHere)
    try:
        request = urllib.request.Request(f"{server.url.rstrip('/')}{path}", data=data, headers=headers)
        with opener.open(request, timeout=server.timeout_s) as answer:
            return _decode(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        content = _decode(error.read(MOST_BYTES))
        if error.code in PARTIAL and content:
            return content
        raise DeliveryFailed(
            "delivery.refused", f"{name} ({server.url}) answered {error.code} {error.reason}: check its URL and token."
        ) from error
    except (OSError, HTTPException, ValueError) as error:  # nobody there; no HTTP; a URL that can't be
        raise unreachable(name, server.url, str(getattr(error, "reason", error))) from error


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the token and the patient's data are for the server of the settings alone."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is, which is an error then."""


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
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
    items = (item for group in groups for item in _values(group, sequence))
    return {str(_first(item, REFERENCED_SOP_INSTANCE_UID)): item for item in items}


def _first(item: Any, tag: str) -> Any:
    return next(iter(_values(item, tag)), None)


def _values(item: Any, tag: str) -> list[Any]:
    """The values of an element of DICOM JSON; none where the answer is something else."""
    element = item.get(tag) if isinstance(item, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []
