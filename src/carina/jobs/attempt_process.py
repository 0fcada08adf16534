"""The process of an attempt, under a guard that ends whatever it started: a program, a process of an operator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import IO, Protocol

from carina.config import Settings
from carina.jobs.attempt_log import new_log
from carina.jobs.places import log_of
from carina.jobs.queue import Attempt
from carina.pipeline.guarded import ENDED_BY_SIGNAL, guard_words

EXECUTE = (sys.executable, "-m", "carina.jobs.execute")
"""What runs an attempt; the job's id and the attempt's number follow."""


class Process(Protocol):
    """What a worker needs of an attempt's process, as ``subprocess.Popen`` has it."""

    stdin: IO[bytes] | None

    def poll(self) -> int | None:
        """The exit code, None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code."""


class GuardedProcess:
    """A guard and the attempt's process in it, as one: neither leaves anything that runs."""

    def __init__(self, guard: subprocess.Popen[bytes]) -> None:
        self._guard = guard
        self.stdin: IO[bytes] | None = guard.stdin

    def poll(self) -> int | None:
        """The exit code of the attempt's process, None while it or anything it started runs."""
        return self._told(self._guard.poll())

    def terminate(self) -> None:
        """Ask the guard to end everything."""
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.close()

    def kill(self) -> None:
        """The same; asked once more, end the guard and its process group, should they stand still."""
        if self.stdin is not None and not self.stdin.closed:
            self.terminate()
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._guard.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until nothing runs any more; gives the exit code."""
        code = self._told(self._guard.wait(timeout))
        return -signal.SIGKILL if code is None else code

    def _told(self, code: int | None) -> int | None:
        return code if code is None or code <= ENDED_BY_SIGNAL else ENDED_BY_SIGNAL - code


def attempt_process(settings: Settings, attempt: Attempt) -> GuardedProcess:
    """Start the process of an attempt, which writes into the attempt's log.

    Raises:
        OSError: it can't be started.
    """
    log = log_of(settings, attempt.job_id, attempt.number)
    new_log(log)
    words = guard_words([*EXECUTE, str(attempt.job_id), str(attempt.number)], fed=True)
    with log.open("ab") as file:
        return GuardedProcess(
            subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        )
