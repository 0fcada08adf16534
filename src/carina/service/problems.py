"""Errors as answers: problem+json (RFC 9457) with our code and our sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import msgspec
from starlette.requests import HTTPConnection
from starlette.responses import Response

from carina.database import FolderAway
from carina.errors import BadConfig, BadSeries, CarinaError, DeliveryFailed
from carina.receive.upload_errors import NoRoomForUpload, NoUpload, UploadNotStored, UploadRefused

PROBLEM = "application/problem+json"

_FIRST_WORD = re.compile(r"[a-z][a-z'-]*(?=,? [^(])")
"""A word of the language: names of files, settings and objects have dots, digits or a colon in or behind them."""


def without_source(error: str, source: str) -> str:
    """An error without the path of what the run read, which stands beside it; the node may have been moved since."""
    before, mark, after = error.partition(f"{source}: ")
    return after if mark and (not before or Path(before).is_absolute()) else error


def as_sentence(text: str) -> str:
    """A message as it stands alone on a page: with a capital. It begins small for a command line, behind a word."""
    return text[:1].upper() + text[1:] if _FIRST_WORD.match(text) else text


def said_to(request: HTTPConnection, error: CarinaError) -> str:
    """What an error says to whoever asks: a node has its gate leave out where things are, for those who only read."""
    tell: Callable[[str], str] | None = getattr(request.state, "tell", None)
    return tell(error.message) if tell else error.message


class NotThere(CarinaError):
    """What a request names is not on this node. HTTP 404."""


class NotUnderstood(CarinaError):
    """A request, or a query in it, can't be understood. HTTP 400."""


class Refused(CarinaError):
    """A request may not be made from where it comes. HTTP 403."""


class NotAcceptable(CarinaError):
    """A client takes none of the forms in which a thing can be given. HTTP 406."""


class OutOfReach(CarinaError):
    """A file of what a request names is on this node and can't be read now. HTTP 503.

    ``is_of_one`` says that others may well be read: it is not the process that can open none.
    """

    is_of_one = True


class Conflict(CarinaError):
    """What a request asks for does not fit the state that something is in. HTTP 409."""


STATUS: Mapping[type[CarinaError], int] = {
    NotThere: 404,
    NotUnderstood: 400,
    Refused: 403,
    NotAcceptable: 406,
    Conflict: 409,
    NoUpload: 404,
    UploadRefused: 409,
    NoRoomForUpload: 413,
    UploadNotStored: 507,
    BadSeries: 422,
    FolderAway: 503,
    OutOfReach: 503,
    BadConfig: 400,
    DeliveryFailed: 502,
}
"""By who must act; any other error is a fault of ours."""


class HttpProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not answered: ``code`` is stable, ``detail`` is a sentence."""

    title: str
    status: int
    code: str
    detail: str


def problem(status: int, code: str, detail: str) -> Response:
    """An error as an answer."""
    told = HttpProblem(title=HTTPStatus(status).phrase, status=status, code=code, detail=detail)
    return Response(msgspec.json.encode(told), status_code=status, media_type=PROBLEM)


def status_of(error: CarinaError) -> int:
    """The HTTP status of an error."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
