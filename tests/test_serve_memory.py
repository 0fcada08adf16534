"""The server's threads share few of the C library's arenas, and what it has loaded is not looked through for cycles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from carina.testing.ports import free_port

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


LOADED = """
import gc
from pathlib import Path
from carina.config import load_settings
from carina.service.serve import _Server, node_of, server_config
import sys

node = node_of(load_settings(Path(sys.argv[1]), {}))
_Server(server_config(node), node)._start_parts()
node.stop.set()
looked_through, loaded = len(gc.get_objects()), gc.get_freeze_count()

class Cycle:
    def __init__(self):
        self.own = self

    def __del__(self):
        print("freed")

Cycle()
gc.collect()
print(looked_through, loaded)
"""


def test_what_a_served_node_has_loaded_is_not_looked_through_and_later_cycles_are_freed(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text(f'[node]\nfolder = "{tmp_path / "node"}"\nfree_gb = 0.0\n[web]\nport = {free_port()}\n')
    done = subprocess.run([sys.executable, "-c", LOADED, file], capture_output=True, text=True, check=True)
    freed, numbers = done.stdout.splitlines()
    looked_through, loaded = map(int, numbers.split())
    assert freed == "freed" and looked_through < loaded / 10
