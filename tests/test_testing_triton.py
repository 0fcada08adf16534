"""A Triton server is waited for as long as it gets on, however slow the machine is, and no longer."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from carina.testing import triton
from carina.testing.ports import free_port
from carina.testing.triton import Triton


@contextmanager
def started(folder: Path, program: str) -> Iterator[Triton]:
    """A program in the place of a server, which lives until its input ends."""
    (folder / "log").write_text("E1130 no GPU\n")
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield Triton(http=f"http://127.0.0.1:{free_port()}", grpc="", log=folder / "log", process=process)
    finally:
        process.communicate()


def hurry(monkeypatch: pytest.MonkeyPatch, progress: Iterator[int]) -> None:
    """Let ten seconds pass at every look at the clock, and the server get on like this."""
    clock = count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(triton, "_progress", lambda _: next(progress))


def test_a_server_that_gets_on_is_waited_for_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count()

    def answer(*_: object, **__: object) -> io.BytesIO:
        if next(asked) < 100:
            raise ConnectionRefusedError
        return io.BytesIO()

    with started(tmp_path, "input()") as server:
        hurry(monkeypatch, count())
        monkeypatch.setattr(urllib.request, "urlopen", answer)
        triton._wait(server, "ready", 60.0)
    assert next(asked) == 101


def test_one_that_stands_still_or_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(tmp_path, "raise SystemExit(3)") as server:
        server.process.wait()
        with pytest.raises(RuntimeError, match=r"^tritonserver ended with exit code 3 and is not live; .*: E1130"):
            triton._wait(server, "live", 60.0)
    with started(tmp_path, "input()") as server:
        hurry(monkeypatch, iter([7] * 100))
        with pytest.raises(RuntimeError, match=r"^tritonserver stood still for 60 s and is not ready; its log: E1130"):
            triton._wait(server, "ready", 60.0)


def test_a_server_gets_on_by_what_it_writes_and_by_what_its_processes_compute(tmp_path: Path) -> None:
    helped = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {'while True: pass'!r}])"
    with started(tmp_path, helped) as server:
        written = triton._progress(server)[0]
        server.log.write_text("more")
        assert triton._progress(server)[0] != written
        while triton._progress(server)[1] < 1:  # of its helper
            assert server.process.poll() is None
        os.killpg(server.process.pid, signal.SIGKILL)
