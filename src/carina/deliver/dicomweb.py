"""One request to a DICOMweb server, its answer whole or as it comes, and DICOM JSON read with care."""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any

from carina.config import DicomwebDestination
from carina.deliver.answers import code_words, comment_of
from carina.deliver.paced_http import LEAST_PROGRESS, paced_opener
from carina.deliver.receipt import unreachable
from carina.deliver.tls import PeerTls, peer_tls
from carina.errors import DeliveryFailed, one_line, with_words
from carina.pipeline.json_text import read_json

MOST_BYTES = 2**24
"""More than any answer has."""

MOST_JSON_VALUES = 1_000_000
"""More than any answer has in JSON: each takes some 70 bytes of memory or more, and no more than 2 in the answer."""

MOST_S = 600.0

DICOM_JSON = "application/dicom+json"


@dataclass(kw_only=True)
class AnswerBudget:
    """What is left for answers that belong together: requests, bytes, and time until ``until_s`` of the clock."""

    requests: int = 1
    size: int = MOST_BYTES
    until_s: float = field(default_factory=lambda: time.monotonic() + MOST_S)

    def spend(self, *, requests: int = 0, size: int = 0) -> str:
        """Count down; what there is too much of, if anything."""
        self.requests -= requests
        self.size -= size
        if self.requests < 0:
            return "its answers go on without end"
        if self.size < 0:
            return "its answer is larger than any is"
        return "its answer takes too long" if time.monotonic() > self.until_s else ""


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


def exchange(
    name: str,
    server: DicomwebDestination,
    path: str,
    data: bytes | None = None,
    kind: str = "",
    budget: AnswerBudget | None = None,
) -> WebAnswer:
    """Send a request, a POST where there is ``data`` of this content type; any code is an answer.

    Raises:
        DeliveryFailed: the server can't be reached, sends too slowly, breaks off, or answers without end: more than
            the budget has, which is one answer's unless one is given.
    """
    left = budget or AnswerBudget()
    _check_budget(name, server, left.spend(requests=1))
    with _answer(name, server, path, {"Accept": DICOM_JSON} | ({"Content-Type": kind} if kind else {}), data) as answer:
        content = bytearray()
        for chunk in _chunks(name, server, answer):
            content += chunk
            _check_budget(name, server, left.spend(size=len(chunk)))
        missing = 0 if isinstance(answer, urllib.error.HTTPError) else answer.length
        if missing:  # the standard library notices only where a body is in chunks
            words = f"{name} ({server.url}): its answer broke off, {missing} bytes before its end; try again."
            raise DeliveryFailed("delivery.cut-off", words)
        return WebAnswer(code=answer.status or 0, reason=answer.reason, content=_decode(content))


def _check_budget(name: str, server: DicomwebDestination, over: str) -> None:
    if over:
        raise DeliveryFailed("delivery.endless", f"{name} ({server.url}): {over}; ask for less, or see what it sends.")


def found_items(name: str, server: DicomwebDestination, answer: WebAnswer) -> list[Any]:
    """What a query found by its answer, a successful one (PS3.18 8.3.4.4: none is 204 or an empty list).

    Raises:
        DeliveryFailed: it is no list in JSON: a page to log in at, say, or what is left of a list; or something in the
            list is no data set (PS3.18 F.2).
    """
    if answer.code == HTTPStatus.NO_CONTENT:
        return []
    if not isinstance(answer.content, list):
        words = f"{name} ({server.url}): its answer to a query is no list in JSON (at most {MOST_JSON_VALUES} values)"
        raise DeliveryFailed("delivery.no-json", f"{words}: check its URL, user or token, or try again.")
    if not all(
        isinstance(one, dict) and all(isinstance(value, dict) for value in one.values()) for one in answer.content
    ):
        words = f"{name} ({server.url}): its answer to a query holds what is no data set in DICOM's JSON"
        raise DeliveryFailed("delivery.no-json", f"{words}: check that its URL is that of a DICOMweb service.")
    return answer.content


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
    headers |= _credentials(server)
    tls: PeerTls | None = None
    try:
        tls = peer_tls(name, server.url, server)
        request = urllib.request.Request(f"{server.url.rstrip('/')}{path}", data=data, headers=headers)
        answer: HTTPResponse = paced_opener(tls.context if tls else None).open(request, timeout=server.timeout_s)
    except urllib.error.HTTPError as error:
        return error
    except _NO_HTTP as error:
        seen = tls.trouble() if tls else None
        raise (unreachable(name, server.url, *seen) if seen else _unreachable(name, server, error)) from error
    return answer


def _credentials(server: DicomwebDestination) -> dict[str, str]:
    if server.token:
        return {"Authorization": f"Bearer {server.token}"}
    if not server.user:
        return {}
    pair = base64.b64encode(f"{server.user}:{server.password}".encode())
    return {"Authorization": f"Basic {pair.decode('ascii')}"}


def _chunks(name: str, server: DicomwebDestination, answer: HTTPResponse | urllib.error.HTTPError) -> Iterator[bytes]:
    try:
        while chunk := answer.read1(LEAST_PROGRESS):
            yield chunk
    except TimeoutError as error:
        why, advice = f"it began to answer, then {one_line(str(error))}", "Try again, or allow it more time: timeout_s"
        raise unreachable(name, server.url, why, advice) from error
    except _NO_HTTP as error:
        raise _unreachable(name, server, error) from error


def _unreachable(name: str, server: DicomwebDestination, error: Exception) -> DeliveryFailed:
    """A server that speaks no HTTP is not quoted: what it says may name a patient."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    is_ours = isinstance(cause, str | OSError) and not isinstance(cause, HTTPException)
    why = one_line(str(cause)) if is_ours else f"it speaks no HTTP as it should ({type(cause).__name__})"
    return with_words(unreachable(name, server.url, why), error)


def refused(name: str, server: DicomwebDestination, answer: WebAnswer) -> DeliveryFailed:
    """The error for a response that is no success."""
    told = DeliveryFailed(
        "delivery.refused", f"{name} ({server.url}) answered {code_words(answer.code)}: check its URL, user or token."
    )
    told.said = comment_of(answer.reason)  # a server may say anything in its place
    return told


def first_value(item: Any, tag: str) -> Any:
    """The first value of an element of DICOM JSON; None where there is none."""
    return next(iter(json_values(item, tag)), None)


def json_values(item: Any, tag: str) -> list[Any]:
    """The values of an element of DICOM JSON; none where the answer is something else."""
    element = item.get(tag) if isinstance(item, Mapping) else None
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values if isinstance(values, list) else []


def _decode(content: bytes | bytearray) -> Any:
    if sum(content.count(sign) for sign in (b"{", b"[", b",", b":")) > MOST_JSON_VALUES:
        return None
    try:
        return read_json(bytes(content))
    except ValueError:
        return None
