"""A node as a process: opened, listening, started part by part, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import uvicorn

from carina import RESEARCH_ONLY, __version__
from carina.config import Settings, WebSettings
from carina.database import SCHEMA, open_database
from carina.errors import BadConfig, unwritable
from carina.service.app import web_app
from carina.service.check import listen, tls_context
from carina.service.loops import start_all, stop_all
from carina.service.node import RunningNode
from carina.service.parts import parts_of

_LOG = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long requests and parts may take to end after the node was asked to."""

FOLDERS = ("incoming", "runs", "logs")


def open_node(settings: Settings) -> RunningNode:
    """A node with its folder and database, made where they are missing.

    Raises:
        BadConfig: the folder can't be written, or the database not be opened.
    """
    folder = Path(settings.node.folder)
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error, folder) from error
    engine = open_database(settings.node.database or f"sqlite:///{(folder / 'node.sqlite').absolute()}")
    SCHEMA.create_all(engine)
    return RunningNode(settings=settings, engine=engine)


def run_node(settings: Settings) -> None:
    """Serve until the process is asked to end (SIGTERM, SIGINT); then end parts and requests in order.

    Raises:
        BadConfig: the node can't be opened, or its port is taken.
    """
    node = open_node(settings)
    listener = _listener(settings.web)
    server = _Server(_web(node), node)
    _LOG.info("listening", extra={"url": url_of(settings.web), "version": __version__, "notice": RESEARCH_ONLY})
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # what uvicorn was told, it tells again once it has ended
        pass
    finally:
        stop_all(node.parts, node.stop, PATIENCE_S)
        node.engine.dispose()
        _LOG.info("stopped")


def url_of(web: WebSettings) -> str:
    """Where the pages are."""
    host = f"[{web.host}]" if ":" in web.host else web.host
    return f"{'https' if web.tls else 'http'}://{host}:{web.port}/"


class _Server(uvicorn.Server):
    """Starts the node's parts once it listens, so that a slow import delays nobody; ends streams before it waits."""

    def __init__(self, config: uvicorn.Config, node: RunningNode) -> None:
        super().__init__(config)
        self._node = node
        self._starting: asyncio.Future[None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._starting = asyncio.get_running_loop().run_in_executor(None, self._start_parts)

    def _start_parts(self) -> None:
        self._node.parts.extend(parts_of(self._node))
        start_all(self._node.parts)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._node.stop.set()
        await self._starting
        await super().shutdown(sockets)


def _web(node: RunningNode) -> uvicorn.Config:
    tls = node.settings.web.tls
    return uvicorn.Config(
        web_app(node),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(PATIENCE_S),
        h11_max_incomplete_event_size=64 * 1024,
        ssl_context_factory=(lambda *_: tls_context(tls)) if tls else None,
    )


def _listener(web: WebSettings) -> socket.socket:
    try:
        return listen(web.host, web.port)
    except OSError as error:
        message = f"web.port: can't listen on {web.host}:{web.port} ({error.strerror or error}); is it in use?"
        raise BadConfig("web.port", message) from error
