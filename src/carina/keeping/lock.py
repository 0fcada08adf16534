"""A backup and the removal of files exclude each other: what a saved row names has to be there until it is copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

KEEPING_LOCK = "keeping.lock"


@contextmanager
def files_held(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the files of a node's folder for the block; whether they are: without ``wait``, not while another does."""
    lock = FileLock(folder / KEEPING_LOCK, mode=0o600)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
