"""The server's threads share few of the C library's arenas, each of which keeps what was held once."""

from __future__ import annotations

import subprocess
import sys

import pytest

BUSY = """
import ctypes, sys, threading
from carina.service.allocator import share_memory

library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
library.fclose.argtypes = [ctypes.c_void_p]
library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]

def work():
    one = bytes(100_000)
    barrier.wait()
    del one

if sys.argv[1] == "shared":
    share_memory()
barrier = threading.Barrier(20)
threads = [threading.Thread(target=work) for _ in range(20)]
[one.start() for one in threads]
[one.join() for one in threads]
file = library.fopen(sys.argv[2].encode(), b"w")
library.malloc_info(0, file)
library.fclose(file)
print(open(sys.argv[2]).read().count("<heap "))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library is another one")
def test_threads_share_few_arenas(tmp_path_factory: pytest.TempPathFactory) -> None:
    place = str(tmp_path_factory.mktemp("info") / "heaps.xml")
    arenas = {}
    for how in ("shared", "left"):
        done = subprocess.run([sys.executable, "-c", BUSY, how, place], capture_output=True, text=True, check=True)
        arenas[how] = int(done.stdout)
    assert arenas["shared"] <= 2 < arenas["left"]


HOLDING = """
import sys
from pathlib import Path
from carina.service.allocator import trim_memory, share_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

share_memory()
pieces = [bytes(50_000) for _ in range(4000)]
kept = pieces[::200]
before = resident()
del pieces
held = resident()
trim_memory()
print(before, held, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library is another one")
def test_pages_between_what_is_kept_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLDING], capture_output=True, text=True, check=True)
    before, held, left = map(int, done.stdout.split())
    assert held > 0.8 * before and left < held / 2
