"""Connections of callers who showed a certificate: its name goes with each of their requests."""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from carina.errors import one_line

PEER = "peer"
"""The key in a request's state."""

_LONGEST_PEER = 64


class PeerProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it; ASGI has no place of its own for a certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whose certificate the TLS layer has verified."""
        super().connection_made(transport)
        connection = cast("ssl.SSLObject | None", transport.get_extra_info("ssl_object"))
        certificate = connection.getpeercert() if connection else None
        if certificate:
            self.app_state = {**self.app_state, PEER: peer_name(certificate)}


def peer_name(certificate: object) -> str:
    """The common name of a verified certificate's subject."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    names = [value for part in subject for key, value in part if key == "commonName"]
    return one_line(str(names[0]) if names else "without a name")[:_LONGEST_PEER]
