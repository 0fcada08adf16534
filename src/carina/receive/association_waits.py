"""What the two threads of an association wait for, in place of looking again every millisecond as in the original.

One waits for bytes of the peer or for something to send (``Bell``), the other for a message that is whole. Each looks
up now and then all the same, for timers and for being ended.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from queue import Queue
from typing import Any

LOOKS_UP_AFTER_S = 0.05


class Bell:
    """Wakes a thread that waits for a connection's bytes."""

    def __init__(self) -> None:
        self._hears, self._rings = socket.socketpair()
        for one in (self._hears, self._rings):
            one.setblocking(False)

    def ring(self) -> None:
        """Wake it; a bell that was rung already, or is gone, need not be."""
        with suppress(OSError):
            self._rings.send(b"x")

    def wait(self, connection: socket.socket, longest_s: float) -> bool:
        """Wait until there is something to read, the bell rings, or the time is over; whether there is.

        Raises:
            OSError: the connection is broken.
            ValueError: it is closed.
        """
        poller = select.poll()  # ``select`` knows no descriptor above 1023, and a busy server has more
        for one in (connection, self._hears):
            poller.register(one, select.POLLIN)
        ready = {number for number, _ in poller.poll(1000 * longest_s)}
        if self._hears.fileno() in ready:
            with suppress(OSError):
                self._hears.recv(4096)
        return connection.fileno() in ready

    def close(self) -> None:
        """Let go of it."""
        self._hears.close()
        self._rings.close()


class RingingQueue(Queue[Any]):
    """A queue that rings when something is put into it."""

    def __init__(self, bell: Bell) -> None:
        super().__init__()
        self._bell = bell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        """Put something in, and ring."""
        super().put(item, block, timeout)
        self._bell.ring()


class PatientQueue(Queue[Any]):
    """A queue whose reader, who asks without end and does not block, is let wait for a little while."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        """The next one.

        Raises:
            queue.Empty: there is none in that time.
        """
        return super().get(timeout=timeout if block else LOOKS_UP_AFTER_S)
