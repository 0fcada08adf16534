"""One finished run on loopback, for whoever sits at this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carina.errors import BadConfig
from carina.service.viewer.opened import RunShelf
from carina.service.viewer.routes import viewer_routes

VIEW_HOST = "127.0.0.1"

ANSWER_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing from elsewhere, nothing to elsewhere, no page of a stranger's may show ours."""


class WithHeaders:
    """Middleware that sets ``ANSWER_HEADERS``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and set the headers of its answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ANSWER_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def run_app(folder: Path) -> Starlette:
    """The pages of one run.

    Raises:
        BadConfig: the folder holds no run of Carina.
    """
    shelf = RunShelf()
    shelf.open(folder)
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[VIEW_HOST, "localhost"], www_redirect=False)
    return Starlette(routes=viewer_routes(lambda _: folder, shelf), middleware=[Middleware(WithHeaders), hosts])


def loopback_listener(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one.

    Raises:
        BadConfig: ``view.port``, the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((VIEW_HOST, port))
    except OSError as error:
        listener.close()
        raise BadConfig(
            "view.port", f"port {port} of {VIEW_HOST} can't be listened on ({error.strerror}): choose another --port."
        ) from error
    return listener


def serve_run(app: Starlette, listener: socket.socket) -> None:
    """Answer until the process is asked to end."""
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])
