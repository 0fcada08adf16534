"""Commands whose memory is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEASURING = """
import json, os, sys, tempfile
from pathlib import Path
import carina.api.study, carina.operators.table
from carina.cli.main import main
for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["carina", *json.loads(line)]
            try:
                main()
            finally:
                status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
                print("peak", int(status["VmHWM"].split()[0]) * 1024, file=sys.stderr)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [os.pread(stream.fileno(), 1 << 20, 0).decode() for stream in (out, err)]
        print(json.dumps([code, *texts]), flush=True)
"""
"""Runs a command for each line, in a process of its own that a process forks which has imported everything."""

Measured = Callable[..., tuple[subprocess.CompletedProcess[str], int]]


@contextmanager
def measuring() -> Iterator[Measured]:
    """Gives a command's end, and the most memory that its process took, in bytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the most memory that a process took is read from /proc, which is not here")
    words = [sys.executable, "-c", MEASURING]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ended(*words: str) -> tuple[subprocess.CompletedProcess[str], int]:
            assert process.stdin is not None and process.stdout is not None
            print(json.dumps(words), file=process.stdin, flush=True)
            code, out, err = json.loads(process.stdout.readline())
            *said, last = err.splitlines()
            return subprocess.CompletedProcess(words, code, out, "\n".join(said)), int(last.split()[1])

        yield ended
