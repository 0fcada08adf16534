"""Free ports: of a process alone, below those that the system gives away, and never one that is taken."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from carina.testing.ports import LOOPBACK, free_port

OF_ANOTHER = (
    "from carina.testing.ports import free_port\nprint(*(free_port() for _ in range(250)), flush=True)\ninput()"
)


def test_processes_at_once_have_ports_of_their_own() -> None:
    own = {free_port() for _ in range(250)}
    command = [sys.executable, "-c", OF_ANOTHER]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    given = [{int(port) for port in other.stdout.readline().split()} for other in others if other.stdout]
    for other in others:
        other.communicate("\n")
    together = own.union(*given)
    assert [len(ports) for ports in given] == [250, 250, 250]
    assert len(together) == len(own) + 750


def test_the_system_gives_none_of_them_to_a_connection() -> None:
    file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(file.read_text().split()[0]) if file.exists() else 32_768
    assert max(free_port() for _ in range(250)) < lowest


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.socket() as listener:
        taken = free_port()
        listener.bind((LOOPBACK, taken))
        listener.listen()
        assert taken not in {free_port() for _ in range(500)}
