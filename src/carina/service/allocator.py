"""How the C library keeps memory for the server, whose many threads each hold data sets of megabytes for a moment.

Left to itself, glibc keeps an arena for every few threads (eight for each core), and each keeps pieces of what its
threads have held. Having everything above 128 kB given back at once would save 8 MB more, and cost a tenth of the rate
at which instances are received and more (benchmarks, receiving). Whole pages that hold nothing are given back now and
then: the pieces grow slowly where jobs, deliveries and pages take turns with what is received.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

_ARENA_MAX = -8
"""As ``malloc.h`` of glibc numbers it (mallopt(3))."""

ARENAS = 2


def share_memory() -> None:
    """Have all threads that start from now on share few arenas; nothing where the C library is another one."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has no mallopt
        ctypes.CDLL(None).mallopt(_ARENA_MAX, ARENAS)


def leave_loaded() -> None:
    """Have cycles looked for in what comes from now on alone.

    In all that a server has loaded that takes a tenth of a second, for which every request waits, and finds nothing.
    """
    gc.collect()
    gc.freeze()


def trim_memory() -> None:
    """Give the system what pages of the arenas hold nothing; nothing where the C library is another one."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
