"""HTTP of the standard library whose answers must keep coming: a peer that sends byte by byte holds nobody for hours.

A socket's timeout is counted anew with every byte. Here the time that is waited for bytes is added up, and begins
again only with every ``LEAST_PROGRESS``; status line, headers and body alike. Redirections aren't followed.
"""

from __future__ import annotations

import io
import ssl
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from socket import socket
from typing import Any

LEAST_PROGRESS = 65_536
"""Bytes."""

PATIENCE = 2.0
"""Within so many times the socket's timeout, ``LEAST_PROGRESS`` must come."""


class PacedBytes(io.RawIOBase):
    """The bytes of a stream, while they come fast enough."""

    def __init__(self, raw: Any, timeout_s: float | None, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._raw, self._clock_s = raw, clock_s
        self._most_s = None if timeout_s is None else PATIENCE * timeout_s
        self._waited_s, self._came = 0.0, 0

    def readable(self) -> bool:
        """They can be read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """The next bytes into a buffer; their number.

        Raises:
            TimeoutError: none came, or too few in too long a time.
        """
        began_s = self._clock_s()
        count: int | None = self._raw.readinto(buffer)
        self._waited_s += self._clock_s() - began_s
        self._came += count or 0
        if self._came >= LEAST_PROGRESS:
            self._waited_s, self._came = 0.0, 0
        elif count and self._most_s is not None and self._waited_s > self._most_s:
            raise TimeoutError(f"only {self._came} bytes came in {self._waited_s:.0f} s")
        return count

    def close(self) -> None:
        """Close the stream as well."""
        self._raw.close()
        super().close()


class PacedResponse(HTTPResponse):
    """An answer that is read through ``PacedBytes``."""

    def __init__(self, sock: socket, debuglevel: int = 0, method: str | None = None, url: str | None = None) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(PacedBytes(self.fp.detach(), sock.gettimeout()))


class _Connection(HTTPConnection):
    response_class = PacedResponse


class _TlsConnection(HTTPSConnection):
    response_class = PacedResponse


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(context=tls)
        self._tls = tls

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_TlsConnection, req, context=self._tls)


class StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the token and the patient's data are for the server of the settings alone."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is, which is an error then."""


def paced_opener(tls: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """What opens addresses so; ``tls`` says who is trusted, None: whom this machine trusts."""
    return urllib.request.build_opener(_Http, _Https(tls), StayHere)
