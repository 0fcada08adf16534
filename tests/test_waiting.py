"""Tests wait as long as somebody works at what they wait for, and by no clock."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import waiting
from waiting import wait_until

CLOCKS = re.compile(r"(?:while|assert)\b[^\n]*\btime\.(?:monotonic|time|perf_counter)\(\) [<>]=? ")

BY_CLOCK = {"test_jobs_worker.py": "kills workers at drawn times"}
"""Tests that look at a clock for another end than to give up."""


def test_no_test_gives_up_by_a_clock() -> None:
    files = sorted(Path(__file__).parent.glob("*.py"))
    found = {file.name for file in files if CLOCKS.search(file.read_text())} - {Path(__file__).name}
    assert found - BY_CLOCK.keys() == set()
    assert CLOCKS.search("        assert time.monotonic() < end, 'late'")
    assert CLOCKS.search("    while not is_so() and time.monotonic() < end:")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "IDLE_S", 0.3)


@pytest.mark.usefixtures("hasty")
def test_what_nobody_works_at_is_given_up() -> None:
    with pytest.raises(AssertionError, match="nobody works at it"):
        wait_until(lambda: False)


@pytest.mark.usefixtures("hasty")
def test_what_a_process_has_left_undone_is_given_up_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        with pytest.raises(AssertionError, match="ended before"):
            wait_until(lambda: False, child)
        wait_until(lambda: True, child)


ONE_CHILD = """
import sys
for _ in range(30_000_000):
    pass
print("done", flush=True)
sys.stdin.read()
"""

ONE_AFTER_ANOTHER = """
import subprocess, sys
for _ in range(8):
    subprocess.run([sys.executable, "-c", "for _ in range(6_000_000): pass"])
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("code", [ONE_CHILD, ONE_AFTER_ANOTHER], ids=["one child", "children of it, one by one"])
def test_what_children_work_at_is_waited_for_many_times_as_long(code: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        said = threading.Event()

        def read() -> None:
            assert child.stdout is not None and child.stdout.readline()
            said.set()

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(said.is_set, child)
        reader.join()
        child.kill()
