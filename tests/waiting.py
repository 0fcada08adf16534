"""Waiting for what others do: bounded by their progress, and by no clock, which a busy machine is late for."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
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
    since_s, seen = time.monotonic(), _work()
    while not is_so():
        assert all(one.poll() is None for one in processes) or is_so(), "what it waits for has ended before"
        time.sleep(LOOKS_S)
        if (now_s := time.monotonic()) - since_s > IDLE_S:
            now = _work()
            assert now.since(seen) > BUSY * (now_s - since_s), "it did not come about, and nobody works at it"
            since_s, seen = now_s, now


@dataclass(frozen=True)
class Work:
    """Seconds in which ours had the processor, those that have ended too, and in which each thread waited for it."""

    had_s: float
    waited_s: Mapping[Path, float]

    def since(self, before: Work) -> float:
        """Seconds that were wanted between two looks."""
        waited = (now - before.waited_s.get(thread, 0) for thread, now in self.waited_s.items())
        return self.had_s - before.had_s + sum(waited)


def _work() -> Work:
    """What Linux counts of this process and all its children; of children that ended it is with who began them."""
    had_ticks = 0
    waited_s: dict[Path, float] = {}
    for process in (os.getpid(), *_descendants(os.getpid())):
        with suppress(OSError):
            after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            had_ticks += sum(map(int, after_name[11:15]))  # user, system, and both of children (proc(5))
        for file in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):
                waited_s[file] = int(file.read_text().split()[1]) / 1e9
    return Work(had_ticks / os.sysconf("SC_CLK_TCK"), waited_s)


def _descendants(process: int) -> Iterator[int]:
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _descendants(child)
