"""Connections to the web port: the name in a caller's certificate goes with each request, and none is held for good."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from carina.errors import one_line

PEER = "peer"
"""The key in a request's state."""

_LONGEST_PEER = 64


HEAD_S = 15.0
"""Time for a caller, once it is connected, or was answered, until the head of its next request is whole."""


class PeerProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; ASGI has no place of its own for a certificate, nor for what is no request yet."""

    _awaited: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whose certificate the TLS layer has verified."""
        super().connection_made(transport)
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

    def on_response_complete(self) -> None:
        """Wait for the next request, also where not all came of the body of this one."""
        self._await_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._await_nothing()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._await_nothing()
        self._awaited = self.loop.call_later(HEAD_S, self.transport.close)

    def _await_nothing(self) -> None:
        if self._awaited is not None:
            self._awaited.cancel()
            self._awaited = None


def peer_name(certificate: object) -> str:
    """The common name of a verified certificate's subject."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return one_line(str(names[0]) if names else "without a name")[:_LONGEST_PEER]
