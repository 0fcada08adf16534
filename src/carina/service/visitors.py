"""Connections to the web port: at most so many, and room for whoever comes when one address has taken it.

They are counted where they are accepted, before TLS is agreed on. Who waits for a request costs nobody anything but a
place, so it is the first to be closed; a browser connects again when it wants something.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from carina.errors import LastingTrouble

ADDRESS_SHARE = 4
"""Where no place is left, an address keeps a quarter of them against others, whatever it does with them."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visitor:
    """A connection, whose it is, and whether the next move is the caller's: a handshake, the head of a request."""

    connection: socket.socket
    address: str
    is_awaited: bool = True


class Visitors:
    """The connections that are open, by descriptor: first those of whom nothing was heard for longest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[int, Visitor] = {}
        self._trouble = LastingTrouble()

    def admit(self, connection: socket.socket, address: str) -> bool:
        """Take a connection in, for which another may be closed; False where there is no room."""
        if len(self._open) >= self._most:
            self._open = {number: one for number, one in self._open.items() if one.connection.fileno() == number}
        if len(self._open) >= self._most and not self._makes_room(address):
            self._tell(address, f"it was refused: {self._most} are open (web.connections)")
            return False
        self._open[connection.fileno()] = Visitor(connection, address)
        return True

    def note(self, number: int, *, is_awaited: bool) -> None:
        """Note of a connection, by its descriptor, that a request is whole, or that it was answered."""
        if visitor := self._open.pop(number, None):
            self._open[number] = Visitor(visitor.connection, visitor.address, is_awaited)

    def _makes_room(self, address: str) -> bool:
        """Close one connection: of an address with more than its share, for another; else one that waits for nothing.

        Whoever comes while all are at work is refused.
        """
        hog, number = Counter(one.address for one in self._open.values()).most_common(1)[0]
        has_too_many = hog != address and number > self._most // ADDRESS_SHARE
        theirs = [one for one in self._open.items() if has_too_many and one[1].address == hog]
        idle = [one for one in self._open.items() if one[1].is_awaited]
        idle_first = sorted(theirs, key=lambda one: not one[1].is_awaited)
        for descriptor, one in chain(idle_first, idle):
            if has_too_many:
                words = f"{number} of {self._most} connections (web.connections) are its own: one is closed"
                self._tell(hog, words)
            del self._open[descriptor]
            with suppress(OSError):
                one.connection.shutdown(socket.SHUT_RDWR)
            return True
        return False

    def _tell(self, address: str, words: str) -> None:
        if self._trouble.is_news(f"{address} {'refused' if 'refused' in words else 'share'}"):
            _LOG.warning("connection from %s: %s.", address, words)


class FairListener(socket.socket):
    """A listening socket whose connections are counted; ``listener`` is taken over."""

    def __init__(self, listener: socket.socket, visitors: Visitors) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._visitors = visitors

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection.

        Raises:
            ConnectionAbortedError: there was no room for it, and it is closed; ``asyncio`` looks for another then.
        """
        connection, address = super().accept()
        if self._visitors.admit(connection, str(address[0])):
            return connection, address
        connection.close()
        raise ConnectionAbortedError
