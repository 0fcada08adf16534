"""Who is receiving into a node's folder right now: a server, a fetch beside it; and whether nobody is.

What lies there while nobody receives is the rest of a crash. The system lets go of a killed process's lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECEIVING_LOCK = "receiving.lock"


@contextmanager
def receiving(folder: Path) -> Iterator[None]:
    """Say that something of ours is on its way into a node's folder, with any number of others; waits for ``alone``."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody is receiving into a node's folder, and let nobody begin to until the block ends."""
    with _locked(folder, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    handle = os.open(folder / RECEIVING_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, kind)
        yield
    finally:
        os.close(handle)
