"""Waiting for what others do: bounded by their progress, and by no clock, which a busy machine is late for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

LOOKS_S = 0.02
"""Between two looks."""

IDLE_S = 60.0
"""So long nobody of ours has had anything to do: longer than any pause that a test waits through."""

BUSY = 0.2
"""The share of a processor from which on somebody works, or would if the machine let them; looking takes less."""


def wait_until(is_so: Callable[[], object], *processes: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Until something is so, while each of the processes lives and somebody works at it.

    Raises:
        AssertionError: one of them has ended before, or this process and all its children have been idle for long.
    """
    since_s, done_s = time.monotonic(), _wanted_s()
    while not is_so():
        assert all(one.poll() is None for one in processes) or is_so(), "what it waits for has ended before"
        time.sleep(LOOKS_S)
        if (now_s := time.monotonic()) - since_s > IDLE_S:
            wanted_s = _wanted_s()
            assert wanted_s - done_s > BUSY * (now_s - since_s), "it did not come about, and nobody works at it"
            since_s, done_s = now_s, wanted_s


def _wanted_s() -> float:
    """Seconds in which threads of ours had the processor, or waited for it, as Linux counts them."""
    wanted_ns = 0
    for process in (os.getpid(), *_descendants(os.getpid())):
        for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):
                had, waited, _ = file.read_text().split()
                wanted_ns += int(had) + int(waited)
    return wanted_ns / 1e9


def _descendants(process: int) -> Iterator[int]:
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)
