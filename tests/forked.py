"""Attempts of jobs in processes of their own that import nothing: a server that has imported all forks each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired
from typing import IO

from carina.config import Settings
from carina.jobs.places import log_of
from carina.jobs.queue import Attempt
from carina.jobs.worker import World

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["carina.jobs.execute"])


class Forked:
    """An attempt's process as a worker needs it (``carina.jobs.worker.Process``): begun, ended and killed as any."""

    stdin: IO[bytes] | None

    def __init__(self, settings: Settings, attempt: Attempt) -> None:
        log = log_of(settings, attempt.job_id, attempt.number)
        log.parent.mkdir(parents=True, exist_ok=True)
        theirs, ours = _SERVER.Pipe(duplex=False)
        words = (str(attempt.job_id), str(attempt.number))
        self._process = _SERVER.Process(target=_attempted, args=(theirs, str(log), words), daemon=True)
        self._process.start()
        theirs.close()
        self.stdin = os.fdopen(os.dup(ours.fileno()), "wb")
        ours.close()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(self._process.name, timeout or 0.0)
        return self._process.exitcode


def _attempted(lifeline: Connection, log: str, words: tuple[str, str]) -> None:
    from carina.jobs.execute import main

    os.setsid()
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for given, number in ((lifeline.fileno(), 0), (written, 1), (written, 2)):
        os.dup2(given, number)
    lifeline.close()
    sys.stdin, sys.stderr = os.fdopen(0, closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["carina.jobs.execute", *words]
    sys.exit(main())


FORKED = World(start=Forked)
"""The world of a worker whose attempts are forked."""
