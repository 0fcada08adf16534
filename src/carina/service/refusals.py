"""What is said instead of an answer: a page to people, a problem to programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from carina.database import DISK_FULL, FOLDER_AWAY, NO_DATABASE, OTHER_DATABASE, Outages, OwnFolder
from carina.errors import DATABASE_DAMAGED, Bug, CarinaError
from carina.service.access.rules import PROGRAM_PATHS
from carina.service.headers import HEADERS
from carina.service.pages.rendering import html, page
from carina.service.problems import problem, said_to, status_of
from carina.service.slow import TooSlow

_LOG = logging.getLogger(__name__)


OUTAGE_STATUSES: Mapping[str, int] = {
    DISK_FULL: 507,
    FOLDER_AWAY: 503,
    NO_DATABASE: 503,
    OTHER_DATABASE: 503,
    DATABASE_DAMAGED: 503,
}
OUTAGE_WORDS: Mapping[str, str] = {
    DISK_FULL: "no space is left on the node's disk: whoever runs the node has to make room; then try again.",
    FOLDER_AWAY: "the node's folder is not there now: try again; whoever runs the node has to mount its disk.",
    NO_DATABASE: "the node's database can't be used now: try again; whoever runs the node finds the reason in its log.",
    OTHER_DATABASE: "another database is in the place of the node's own: whoever runs the node has to bring that back.",
    DATABASE_DAMAGED: "the node's database is damaged: whoever runs the node has to stop it and restore a backup.",
}
"""What is answered in an outage; which folder it is, and what the database says, is for the node's log."""

HTTP_WORDS: Mapping[int, str] = {
    404: "there is no such page or resource on this node; the worklist is at /.",
    405: "this address does not take such a request; the worklist is at /.",
}
"""What is said where the router knows no better than a status."""


def refusal(request: Request, status: int, code: str, words: str) -> Response:
    """Why a request is not answered."""
    if is_from_page(request):
        return page(request, "said.html", {"said": words, "code": code, "to": "/"}, status)
    return problem(status, code, words)


def is_from_page(request: Request) -> bool:
    """Whether a person looks at the answer."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(PROGRAM_PATHS)


async def answer_error(request: Request, error: Exception) -> Response:
    """The answer to an error that was raised on purpose."""
    if not isinstance(error, CarinaError):
        raise error
    return refusal(request, status_of(error), error.code, said_to(request, error))


async def answer_http(request: Request, error: Exception) -> Response:
    """The answer to what the router refuses: no such route, a method that it doesn't have."""
    if not isinstance(error, HTTPException):
        raise error
    words = HTTP_WORDS.get(error.status_code, f"{error.detail}.")
    answer = refusal(request, error.status_code, f"web.{error.status_code}", words)
    answer.headers.update(error.headers or {})
    return answer


def _broken(request: Request, status: int, code: str, words: str) -> Response:
    """Why nothing came of a request that broke: nothing of the node is asked for it, not even who makes the request."""
    if is_from_page(request):
        return HTMLResponse(html("broken.html", {"said": words, "code": code}), status)
    return problem(status, code, words)


async def answer_outage(request: Request, error: Exception) -> Response:
    """The answer where the disk is full or away, or the database is, which the log tells once; a fault passes on."""
    outages: Outages = request.app.state.outages
    own: OwnFolder = request.app.state.own
    outage = outages.met(error if own.is_there() else own.away)
    if outage is None:
        raise error
    return _broken(request, OUTAGE_STATUSES[outage.code], outage.code, OUTAGE_WORDS[outage.code])


async def answer_bug(request: Request, error: Exception) -> Response:
    """The answer to what nobody foresaw; the log has its traceback."""
    _LOG.error("a request broke", exc_info=error, extra={"path": request.url.path})
    answer = _broken(request, 500, f"bug.{type(error).__name__}", Bug.of(error, "the node's log").message)
    answer.headers.update(HEADERS)  # it is answered before the guard, which adds them to all others
    return answer


async def answer_broken_off(_: Request, error: Exception) -> Response:
    """The answer to a body of which not all came; there is nothing to tell where the caller has gone."""
    words = str(error) or "the caller went away in the middle of the body."
    answer = problem(408, "web.slow", words)
    answer.headers["Connection"] = "close"  # what is still to come of the body is no request
    return answer


BODY_HANDLERS: Mapping[Any, Any] = {TooSlow: answer_broken_off, ClientDisconnect: answer_broken_off}
OUTER_HANDLERS: Mapping[Any, Any] = {OSError: answer_outage, DBAPIError: answer_outage, **BODY_HANDLERS}
HANDLERS: Mapping[Any, Any] = {
    CarinaError: answer_error,
    HTTPException: answer_http,
    Exception: answer_bug,
    **BODY_HANDLERS,
}
