"""Ports of the loopback address for servers of tests, of which many may run on one machine at once.

A port that the system chooses for a socket that is closed again is soon anybody's: another process may get it for a
connection of its own before the server listens. Those given here lie below the ports that systems give away by
themselves, and each process has a block of its own.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import BinaryIO

LOOPBACK = "127.0.0.1"

_BLOCK = 250
_BLOCKS = range(15_000, 32_500, _BLOCK)
"""The first port of each block; systems give away ports from 32768 (Linux) or 49152 (RFC 6335) on."""


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on, and that no other process is given.

    Raises:
        RuntimeError: every block is a process's, or every port of this one's is taken.
    """
    ports = _ports_of(os.getpid())
    for port in (next(ports) for _ in range(_BLOCK)):
        with socket.socket() as listener:
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue  # somebody listens, or has just stopped
            return port
    raise RuntimeError(f"nothing is free among the {_BLOCK} ports of this process")


_HELD: list[BinaryIO] = []
"""The locks of this process's blocks: the system takes them back when it ends."""


@cache
def _ports_of(process: int) -> Iterator[int]:
    """The ports of a process, round and round; a fork is a process of its own."""
    folder = Path(tempfile.gettempdir()) / f"carina-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for first in _BLOCKS:
        lock = (folder / str(first)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _HELD.append(lock)
        return cycle(range(first, first + _BLOCK))
    raise RuntimeError(f"each of the {len(_BLOCKS)} blocks of ports belongs to a process; process {process} gets none")
