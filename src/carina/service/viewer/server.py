"""A finished run or a cohort on loopback, for whoever sits at this machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from carina.api.cohort_table import COHORT_TABLE
from carina.errors import BadConfig, Bug
from carina.service.guard import Guard
from carina.service.headers import HEADERS
from carina.service.problems import NotThere
from carina.service.viewer.changes_page import changes_routes
from carina.service.viewer.cohort_pages import cohort_routes
from carina.service.viewer.correcting import correct_routes
from carina.service.viewer.opened import RunShelf
from carina.service.viewer.routes import Above, Around, error_page, pages_of_run, viewer_routes
from carina.service.viewer.ways_to_correct import Correcting, source_of_run

VIEW_HOST = "127.0.0.1"


def run_app(folder: Path, earlier: Sequence[Path] = (), source: Path | None = None, reader: str = "") -> Starlette:
    """The pages of one run, beside ``earlier`` ones of the same patient, or those of a cohort with all its runs.

    ``source`` is what the run was made from: a finished correction becomes an object of that study. ``reader`` is the
    name that is offered to who corrects.

    Raises:
        BadConfig: a folder holds no run of Carina and no cohort, or a cohort is to be compared.
    """
    guard = Middleware(Guard, hosts=frozenset({VIEW_HOST, "localhost"}))
    routes = _routes(folder, earlier, _correcting(source, reader))
    cohort = [Above(href="/", name="Cohort")] if (folder / COHORT_TABLE).exists() else []

    def answer_http(request: Request, error: Exception) -> Response:
        """The answer where there is no such address, or it does not take such a request."""
        status = getattr(error, "status_code", 500)
        request.scope["root_path"] = ""  # the router leaves there what is mounted
        words = "there is no such page here." if status == 404 else "this address does not take such a request."
        return error_page(request, NotThere(f"web.{status}", words), cohort or pages_of_run(request), status)

    def answer_bug(request: Request, error: Exception) -> Response:
        """The answer to what nobody foresaw; the server prints its traceback."""
        request.scope["root_path"] = ""
        answer = error_page(request, Bug.of(error, "what carina view prints"), cohort or pages_of_run(request), 500)
        answer.headers.update(HEADERS)  # it is answered before the guard
        return answer

    handlers: dict[Any, Any] = {HTTPException: answer_http, Exception: answer_bug}
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)


def _routes(folder: Path, earlier: Sequence[Path], correcting: Correcting) -> list[BaseRoute]:
    if (folder / COHORT_TABLE).exists():
        if earlier:
            raise BadConfig("view.cohort", f"{folder}: is a cohort; --earlier compares the run of one patient.")
        return cohort_routes(folder, correcting)
    shelf = RunShelf()
    for one in (*earlier, folder):
        shelf.open(one)
    numbered = dict(enumerate(earlier, start=1))
    around = Around(is_compared=bool(earlier), earlier=lambda _: numbered, is_correctable=True)
    correct = correct_routes(lambda _: folder, shelf, around, correcting)
    compared = changes_routes(lambda _: folder, lambda _: numbered, shelf, around) if earlier else []
    return [*correct, *compared, *viewer_routes(lambda _: folder, shelf, around)]


def _correcting(source: Path | None, reader: str) -> Correcting:
    known = source is not None
    return Correcting(source=lambda _, run: source_of_run(run, source), offered=lambda _: reader, is_source_known=known)


def loopback_listener(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one.

    Raises:
        BadConfig: ``view.port``, the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((VIEW_HOST, port))
        listener.listen()  # whoever is told the address may come before the server is ready, and waits
    except OSError as error:
        listener.close()
        raise BadConfig(
            "view.port", f"port {port} of {VIEW_HOST} can't be listened on ({error.strerror}): choose another --port."
        ) from error
    return listener


def serve_run(app: Starlette, listener: socket.socket) -> None:
    """Answer until the process is asked to end."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    with suppress(KeyboardInterrupt):  # what uvicorn was told, it tells again once it has ended
        uvicorn.Server(config).run(sockets=[listener])
