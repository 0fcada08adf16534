"""A finished run or a cohort on loopback, for whoever sits at this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from carina.api.cohort_table import COHORT_TABLE
from carina.errors import BadConfig
from carina.service.guard import Guard
from carina.service.viewer.cohort_pages import cohort_routes
from carina.service.viewer.opened import RunShelf
from carina.service.viewer.routes import viewer_routes

VIEW_HOST = "127.0.0.1"


def run_app(folder: Path) -> Starlette:
    """The pages of one run, or those of a cohort with all its runs.

    Raises:
        BadConfig: the folder holds no run of Carina and no cohort.
    """
    guard = Middleware(Guard, hosts=frozenset({VIEW_HOST, "localhost"}))
    return Starlette(routes=_routes(folder), middleware=[guard])


def _routes(folder: Path) -> list[BaseRoute]:
    if (folder / COHORT_TABLE).exists():
        return cohort_routes(folder)
    shelf = RunShelf()
    shelf.open(folder)
    return viewer_routes(lambda _: folder, shelf)


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
