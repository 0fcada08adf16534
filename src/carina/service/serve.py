"""A node as a process: opened, listening, started part by part, and ended in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from carina import RESEARCH_ONLY, __version__
from carina.config import Settings
from carina.errors import BadConfig, unwritable
from carina.jobs.coming_up import await_folder, open_node_once_there
from carina.jobs.one_host import worked_on_here
from carina.jobs.places import NODE_LOCK, make_private
from carina.keeping.gone import tell_gone
from carina.receive.tls import listener_files, tls_context
from carina.service.access.accounts import first_link
from carina.service.allocator import leave_loaded, share_memory
from carina.service.app import web_app
from carina.service.check import listen
from carina.service.loops import start_all, stop_all
from carina.service.node import RunningNode, file_of_database
from carina.service.peers import PeerProtocol, WebConfig
from carina.service.visitors import FairListener, Visitors
from carina.web_settings import WebSettings

_LOG = logging.getLogger(__name__)

_PATIENCE_S = 30.0
"""How long parts may take to end after the node was asked to: those that send finish an object, jobs are told to."""

_REQUESTS_S = 5
"""The same of requests."""


def node_of(settings: Settings) -> RunningNode:
    """A node with its folder and its database, made where they are missing; its parts don't run yet.

    A database whose server can't be reached is waited for.

    Raises:
        BadConfig: the folder can't be written, or the database not be opened.
    """
    engine = open_node_once_there(settings, "node")
    node = RunningNode(settings=settings, engine=engine, database_file=file_of_database(engine))
    node.own.is_there()  # so that its identity is known whenever the folder goes
    return node


def run_node(settings: Settings) -> None:
    """Serve until the process is asked to end (SIGTERM, SIGINT); then end parts and requests in order.

    Raises:
        BadConfig: the node can't be opened, its port is taken, another node runs in its folder, or it is on SQLite and
            another machine works on it.
    """
    share_memory()
    try:
        await_folder(settings, "node")  # before anything is made in it: another would be in its place
    except KeyboardInterrupt:
        _LOG.info("stopped")
        return
    with _alone_in(Path(settings.node.folder)), worked_on_here(settings):
        _run(settings)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """A second node in a folder would remove what the first is just taking, for the rest of a crash.

    Raises:
        BadConfig: another node runs there, or the folder can't be written.
    """
    lock = FileLock(folder / NODE_LOCK, mode=0o600)
    try:
        make_private(folder)  # patients' data: nobody else of this machine reads it
        lock.acquire(timeout=0)
    except Timeout:
        words = "another `carina serve` runs in this folder: end it first, or give this one a folder of its own."
        raise BadConfig("node.busy", f"{folder}: {words}") from None
    except OSError as error:
        raise unwritable(error, folder) from error
    try:
        yield
    finally:
        lock.release()


def _run(settings: Settings) -> None:
    try:
        node = node_of(settings)
    except KeyboardInterrupt:  # asked to end while it waits for its database
        _LOG.info("stopped")
        return
    tell_gone(node.engine, Path(settings.node.folder))
    config = server_config(node)
    listener = FairListener(_listener(settings.web), config.visitors)
    server = _Server(config, node)
    _LOG.info("listening", extra={"url": url_of(settings.web), "version": __version__, "notice": RESEARCH_ONLY})
    if (link := first_invitation(node)) is not None:
        _LOG.warning("nobody can administer this node yet: open the link within a day", extra={"link": link})
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # what uvicorn was told, it tells again once it has ended
        pass
    finally:
        stop_all(node.parts, node.stop, _PATIENCE_S)
        node.engine.dispose()
        _LOG.info("stopped")


def first_invitation(node: RunningNode) -> str | None:
    """The link by which the first administrator chooses a password; None where there is one, or nobody logs in."""
    if not node.settings.web.login:
        return None
    with node.engine.begin() as connection:
        link = first_link(connection, node.now())
    return None if link is None else f"{url_of(node.settings.web)}invited?link={link}"


def url_of(web: WebSettings) -> str:
    """Where the pages are: at the proxy in front, by the first name that was given, or by the address."""
    if web.public_url:
        return f"{web.public_url.rstrip('/')}/"
    called = web.names[0] if web.names else web.host
    host = f"[{called}]" if ":" in called else called
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
        from carina.service.parts import parts_of

        with suppress(SQLAlchemyError):  # the parts say that the database is away, and try again
            self._node.tallies.now()  # of 100,000 jobs the first count takes a moment: it is ready once it has counted
        self._node.parts.extend(parts_of(self._node))
        start_all(self._node.parts)
        for key, words in self._node.network_troubles.items():
            _LOG.warning("a network can't be used, and jobs that need it fail", extra={"key": key, "reason": words})
        leave_loaded()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._node.stop.set()
        await self._starting
        await super().shutdown(sockets)


def server_config(node: RunningNode) -> WebConfig:
    """How requests to a node are read: what a stranger controls is bounded, and nothing is told of the server."""
    web = node.settings.web
    tls = listener_files("web", web.tls) if web.tls else None
    if tls:
        node.hold_certificate(tls)
    config = WebConfig(
        web_app(node),
        http=PeerProtocol,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(web.proxies),
        forwarded_allow_ips=list(web.proxies),
        timeout_graceful_shutdown=_REQUESTS_S,
        h11_max_incomplete_event_size=64 * 1024,
        ssl_context_factory=(lambda *_: tls_context(tls, needs_certificate=not web.login)) if tls else None,
    )
    config.visitors, config.idle_s = Visitors(web.connections), node.settings.dicom.idle_s
    return config


def _listener(web: WebSettings) -> socket.socket:
    try:
        return listen(web.host, web.port)
    except OSError as error:
        message = f"web.port: can't listen on {web.host}:{web.port} ({error.strerror or error}); choose another."
        raise BadConfig("web.port", message) from error
