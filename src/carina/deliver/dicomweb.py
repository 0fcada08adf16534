"""One request to a DICOMweb server with the standard library's HTTP client, and DICOM JSON read with care."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.receipt import unreachable
from carina.errors import DeliveryFailed
from carina.pipeline.json_text import read_json

MOST_BYTES = 2**26
"""More than any answer has; what comes after is not read."""

DICOM_JSON = "application/dicom+json"


@dataclass(frozen=True, kw_only=True)
class WebAnswer:
    """A response: its code, the words beside it, and its decoded JSON (None where it is none)."""

    code: int
    reason: str
    content: Any

    @property
    def is_fine(self) -> bool:
        """Whether the code is one of success."""
        return 200 <= self.code < 300


def exchange(name: str, server: DicomwebDestination, path: str, data: bytes | None = None, kind: str = "") -> WebAnswer:
    """Send a request, a POST where there is ``data`` of this content type; any code is an answer.

    Raises:
        DeliveryFailed: the server can't be reached.
    """
    if not server.url.startswith(("http://", "https://")):
        raise unreachable(name, server.url, "its URL must start with http:// or https://")
    headers = {"Accept": DICOM_JSON}
    headers |= {"Content-Type": kind} if kind else {}
    headers |= {"Authorization": f"Bearer {server.token}"} if server.token else {}
    opener = urllib.request.build_opener(StayHere)
    try:
        request = urllib.request.Request(f"{server.url.rstrip('/')}{path}", data=data, headers=headers)
        try:
            with opener.open(request, timeout=server.timeout_s) as answer:
                return WebAnswer(code=answer.status, reason=answer.reason, content=_decode(answer.read(MOST_BYTES)))
        except urllib.error.HTTPError as error:
            with error:
                return WebAnswer(code=error.code, reason=error.reason, content=_decode(error.read(MOST_BYTES)))
    except (OSError, HTTPException, ValueError) as error:  # nobody there; no HTTP; a URL that can't be
        raise unreachable(name, server.url, str(getattr(error, "reason", error))) from error


def refused(name: str, server: DicomwebDestination, answer: WebAnswer) -> DeliveryFailed:
    """The error for a response that is no success."""
    words = f"answered {answer.code} {answer.reason}"
    return DeliveryFailed("delivery.refused", f"{name} ({server.url}) {words}: check its URL and token.")


def first_value(item: Any, tag: str) -> Any:
    """The first value of an element of DICOM JSON; None where there is none."""
    return next(iter(json_values(item, tag)), None)


def json_values(item: Any, tag: str) -> list[Any]:
    """The values of an element of DICOM JSON; none where the answer is something else."""
    element = item.get(tag) if isinstance(item, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


class StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the token and the patient's data are for the server of the settings alone."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is, which is an error then."""


def _decode(content: bytes) -> Any:
    try:
        return read_json(content)
    except ValueError:
        return None
