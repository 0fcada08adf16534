"""How the C library gives memory to the server, whose many threads each hold data sets of megabytes for a moment.

Left to itself, glibc keeps an arena for each few threads, and raises the size from which memory is given back at once
up to 32 MB, so that what twenty senders have brought stays with the process in pieces.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
"""As ``malloc.h`` of glibc numbers them (mallopt(3))."""

GIVEN_BACK_BYTES = 128 * 1024
"""From this size on, memory is given back to the system as soon as it is free; a set value is not raised."""

ARENAS = 2


def give_memory_back() -> None:
    """Have large memory given back at once, from now on; nothing where the C library is another one."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has no mallopt
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, GIVEN_BACK_BYTES)
        library.mallopt(_ARENA_MAX, ARENAS)
