"""One request to a DICOMweb server, its answer whole or as it comes, and DICOM JSON read with care."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.paced_http import LEAST_PROGRESS, paced_opener
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


@dataclass(frozen=True, kw_only=True)
class WebStream:
    """A response whose body is read as it comes: ``chunks`` ends with it."""

    code: int
    reason: str
    content_type: str
    encoding: str
    chunks: Iterator[bytes]


def exchange(name: str, server: DicomwebDestination, path: str, data: bytes | None = None, kind: str = "") -> WebAnswer:
    """Send a request, a POST where there is ``data`` of this content type; any code is an answer.

    Raises:
        DeliveryFailed: the server can't be reached, or sends too slowly.
    """
    with _answer(name, server, path, {"Accept": DICOM_JSON} | ({"Content-Type": kind} if kind else {}), data) as answer:
        try:
            content = answer.read(MOST_BYTES)
        except _NO_HTTP as error:
            raise _unreachable(name, server, error) from error
        return WebAnswer(code=answer.status or 0, reason=answer.reason, content=_decode(content))


@contextmanager
def streamed(name: str, server: DicomwebDestination, path: str, accept: str) -> Iterator[WebStream]:
    """Ask for something whose body isn't read at once; its chunks raise ``DeliveryFailed`` where it breaks off.

    Raises:
        DeliveryFailed: the server can't be reached.
    """
    with _answer(name, server, path, {"Accept": accept}) as answer:
        yield WebStream(
            code=answer.status or 0,
            reason=answer.reason,
            content_type=answer.headers.get("Content-Type", ""),
            encoding=answer.headers.get("Content-Encoding", ""),
            chunks=_chunks(name, server, answer),
        )


_NO_HTTP = (OSError, HTTPException, ValueError)
"""Nobody is there; what is there speaks no HTTP, or too slowly; the URL can't be one."""


def _answer(
    name: str, server: DicomwebDestination, path: str, headers: dict[str, str], data: bytes | None = None
) -> HTTPResponse | urllib.error.HTTPError:
    if not server.url.startswith(("http://", "https://")):
        raise unreachable(name, server.url, "its URL must start with http:// or https://")
    headers |= {"Authorization": f"Bearer {server.token}"} if server.token else {}
    try:
        request = urllib.request.Request(f"{server.url.rstrip('/')}{path}", data=data, headers=headers)
        answer: HTTPResponse = paced_opener().open(request, timeout=server.timeout_s)
    except urllib.error.HTTPError as error:
        return error
    except _NO_HTTP as error:
        raise _unreachable(name, server, error) from error
    return answer


def _chunks(name: str, server: DicomwebDestination, answer: HTTPResponse | urllib.error.HTTPError) -> Iterator[bytes]:
    try:
        while chunk := answer.read1(LEAST_PROGRESS):
            yield chunk
    except _NO_HTTP as error:
        raise _unreachable(name, server, error) from error


def _unreachable(name: str, server: DicomwebDestination, error: Exception) -> DeliveryFailed:
    return unreachable(name, server.url, str(getattr(error, "reason", error)))


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


def _decode(content: bytes) -> Any:
    try:
        return read_json(content)
    except ValueError:
        return None
