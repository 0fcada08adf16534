"""What stands before every route: whose requests are answered, and what each answer tells the browser.

Without a log-in the node trusts whoever can open a connection on loopback. A web page of a stranger can make the
user's browser do that, so a request must name this node as its host (else a name that is made to point here could read
answers), and one that changes something must not come from another page.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carina.errors import shortened
from carina.service.headers import HEADERS
from carina.service.problems import problem

_LOG = logging.getLogger(__name__)

LOGGED_PATH = 200
"""Characters of a path that the log repeats: callers may send a hundred thousand."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """The middleware; ``hosts`` are the names, without a port, by which the node may be called.

    ``public_url`` is the address of a proxy in front of it: what is called so is answered with addresses, and cookies,
    of that scheme, though the proxy speaks plain HTTP to us. No header is believed for it but ``Host``; the server that
    calls this believes the proxies it is told of by ``X-Forwarded-Proto`` too, for whatever other name they pass on.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], public_url: str = "") -> None:
        self.app = app
        self.public = urlsplit(public_url)
        self.hosts = hosts | ({self.public.hostname} if self.public.hostname else frozenset())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                level = logging.DEBUG if scope["method"] in SAFE and message["status"] < 400 else logging.INFO
                path = shortened(scope["path"], LOGGED_PATH)
                fields = {"method": scope["method"], "path": path, "status": message["status"]}
                _LOG.log(level, "answered", extra=fields)
            await send(message)

        headers = Headers(scope=scope)
        if self._is_public(headers.get("host", "")):
            scope["scheme"], scope["server"] = self.public.scheme, (self.public.hostname, self.public.port)
        refused = self._refusal(scope["method"], headers)
        await (refused or self.app)(scope, receive, with_headers)
        return None

    def _is_public(self, host: str) -> bool:
        """Whether a request was made to the public address; some clients leave a port out."""
        if not self.public.hostname or _name(f"//{host}") != self.public.hostname:
            return False
        usual = {"http": 80, "https": 443}[self.public.scheme]
        return _port_of(f"//{host}") in (None, self.public.port or usual)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if _name(f"//{host}") not in self.hosts:
            words = f"this node is not called {host[:100]!r}; expected one of {', '.join(sorted(self.hosts))}."
            return problem(421, "web.host", words)
        if "transfer-encoding" in headers and "content-length" in headers:
            words = "it has Transfer-Encoding and Content-Length; expected one of them: where it ends is not certain."
            answer = problem(400, "web.length", words)
            answer.headers["Connection"] = "close"
            return answer
        if method not in SAFE and _is_foreign(headers, host):
            return problem(403, "web.origin", "the request comes from a page that is none of this node's.")
        return None


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether a browser says that another site's page sent the request; programs say neither, and may."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return 0


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""
