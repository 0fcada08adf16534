"""The server that runs the networks, where there is one: asked now and then whether it is there."""

from __future__ import annotations

import socket
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from threading import Event
from urllib.parse import urlsplit

from carina.database import Outages
from carina.errors import BadConfig, one_line
from carina.service.node import RunningNode

ASKED_S = 10.0
"""Between two questions."""

_ANSWERS_WITHIN_S = 5.0

ENDPOINT_PART = "networks"
"""What the part of the node is called."""


def check_endpoint(endpoint: str) -> None:
    """See that a server of the Open Inference Protocol is there: by HTTP, that it says it lives; else, that it listens.

    Which models it has, jobs find out.

    Raises:
        BadConfig: ``triton.away``, it isn't; the message says why, and not where, since strangers may ask for it.
    """
    try:
        address = urlsplit(endpoint)
        where = address.hostname or "", address.port or {"http": 80, "https": 443}.get(address.scheme, 8001)
        if address.scheme == "http":
            _ask(HTTPConnection(*where, timeout=_ANSWERS_WITHIN_S), f"{address.path.rstrip('/')}/v2/health/live")
        else:
            socket.create_connection(where, timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, HTTPException, ValueError) as error:
        words = f"runtime.endpoint gives no answer ({one_line(str(error)) or type(error).__name__})"
        raise BadConfig("triton.away", f"{words}: jobs that need networks fail until it does.") from error


def _ask(connection: HTTPConnection, path: str) -> None:
    with closing(connection):
        connection.request("GET", path)
        if (status := connection.getresponse().status) != 200:
            raise OSError(f"HTTP {status} to {path}")


def watch_endpoint(node: RunningNode, stop: Event) -> None:
    """Ask until the event is set; what lasts is told in the log, and by the node's health."""
    outages = node.outages.setdefault(ENDPOINT_PART, Outages(ENDPOINT_PART, node.folder))
    while True:
        try:
            check_endpoint(node.settings.runtime.endpoint)
            outages.is_over()
        except BadConfig as error:
            outages.tell(error)
        if stop.wait(ASKED_S):
            return
