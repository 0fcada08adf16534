"""HTTP on the web port: the name in a caller's certificate goes with each request, and none is held for good."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from carina.errors import one_line
from carina.service.slow import LEAST_BYTES
from carina.service.visitors import Visitors

PEER = "peer"
"""The key in a request's state."""

_LONGEST_PEER = 64


HEAD_S = 15.0
"""Time for a caller, once it is connected, or was answered, until the head of its next request is whole."""


UNREAD_BYTES = 65_536
"""What of an answer waits here for its reader, with TLS too; the rest is made when there is room."""


class WebConfig(Config):
    """What uvicorn is told, and who is connected; an answer that is not read for ``idle_s`` is broken off."""

    visitors: Visitors
    idle_s: float


class PeerProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; ASGI has no place of its own for a certificate, nor for what is no request yet.

    Nor for who reads no answer: within ``idle_s`` a reader takes ``LEAST_BYTES`` of one, or all that waits for it.
    """

    config: WebConfig
    _awaited: asyncio.TimerHandle | None = None
    _reads: asyncio.TimerHandle | None = None
    _descriptor = -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whose certificate the TLS layer has verified."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNREAD_BYTES)
        self._descriptor = transport.get_extra_info("socket").fileno()
        connection = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        certificate = connection.getpeercert() if connection else None
        if certificate:
            self.app_state = {**self.app_state, PEER: peer_name(certificate)}
        self._await_head()

    def handle_events(self) -> None:
        """Note where the head of a request is whole; how its body comes is the application's to see to."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._await_nothing()
            self.config.visitors.note(self._descriptor, is_awaited=False)

    def on_response_complete(self) -> None:
        """Wait for the next request, also where not all came of the body of this one."""
        self._await_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._await_nothing()
        self._stop_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give whoever reads an answer a time in which to read on."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Enough was read; of a connection that is closed, the rest is to be."""
        if self.transport.is_closing():
            self._await_reading()
        else:
            self._stop_reading()
        super().resume_writing()

    def _await_reading(self) -> None:
        self._stop_reading()
        left = self.transport.get_write_buffer_size()
        self._reads = self.loop.call_later(self.config.idle_s, self._look_for_reading, left)

    def _look_for_reading(self, before: int) -> None:
        """Break an answer off that is not read; nothing was added to it meanwhile, as the application waits."""
        if before - self.transport.get_write_buffer_size() < LEAST_BYTES:
            self.transport.abort()
        else:
            self._await_reading()

    def _stop_reading(self) -> None:
        if self._reads is not None:
            self._reads.cancel()
            self._reads = None

    def _await_head(self) -> None:
        self._await_nothing()
        self.config.visitors.note(self._descriptor, is_awaited=True)
        self._awaited = self.loop.call_later(HEAD_S, self._end)

    def _end(self) -> None:
        """Close; the end of an answer has a time to be read in."""
        self.transport.close()
        self._await_reading()

    def _await_nothing(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None


def peer_name(certificate: object) -> str:
    """The common name of a verified certificate's subject."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return one_line(str(names[0]) if names else "without a name")[:_LONGEST_PEER]
