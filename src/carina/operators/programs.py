"""A program of somebody else's, started, watched and ended with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from carina.errors import BadConfig
from carina.operators.growth import MOST_FILES, WrittenBelow
from carina.pipeline import program_guard
from carina.pipeline.guarded import guard_words
from carina.sections import OperatorSettings

LARGEST_LOG_BYTES = 64_000_000
"""What a program may say; one that says more runs in a circle."""

LOOK_S = 0.2
"""How often a program is looked at, and the run asked whether it is interrupted."""

LAST_LINES, LAST_CHARACTERS = 3, 300
"""What a message repeats of a log."""


@dataclass(frozen=True, kw_only=True)
class ProgramBounds:
    """The time that a program may take, and how much it may write below a folder."""

    time_s: float
    writes_to: Path
    output_bytes: float


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is started: ``stop`` ends what the program itself leaves to others, if there is any.

    ``environment`` None is ours. ``bounds`` say what it may take. It reads ``fed`` from its standard input.
    """

    words: Sequence[str]
    environment: Mapping[str, str] | None
    folder: Path
    bounds: ProgramBounds
    stop: Sequence[str] = ()
    fed: bytes = b""


class Over(Enum):
    """Why a program was ended before it ended itself."""

    TIME = "time"
    LOG = "log"
    OUTPUT = "output"


def run_program(program: Program, log: Path, look: Callable[[], None]) -> int | Over:
    """Run a program to its end, its output into a log; its exit code, or what it took too much of.

    ``look`` is called every now and then; what it raises ends the program. So does the end of this process, of
    whatever kind. Nothing that the program started is left afterwards (not on Linux: nothing of its process group).

    Raises:
        OSError: it can't be started.
    """
    growth = WrittenBelow(program.bounds.writes_to, program.bounds.output_bytes)
    guard = guard_words(program.words, stop=program.stop, fed=bool(program.fed))
    with (
        log.open("wb") as output,
        subprocess.Popen(
            guard,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if program.environment is None else dict(program.environment),
            cwd=program.folder,
            start_new_session=True,
        ) as process,
    ):
        try:
            _feed(process, program.fed)
            over = _watch(process.pid, program.bounds.time_s, log, lambda: _seen(look, growth))
        finally:
            _end(process)
        _cut(log)
        return over or (Over.OUTPUT if growth.ends_over() else process.returncode)


def _feed(guard: subprocess.Popen[bytes], fed: bytes) -> None:
    if guard.stdin and fed:
        with suppress(BrokenPipeError):  # it has ended already, which is seen soon
            guard.stdin.write(fed)
            guard.stdin.flush()


def _cut(log: Path) -> None:
    """Let a log be no larger than it may: between two looks much can be said."""
    if log.stat().st_size > LARGEST_LOG_BYTES:
        os.truncate(log, LARGEST_LOG_BYTES)


def why_over(over: Over, told: str, settings: OperatorSettings, log: Path) -> BadConfig:
    """The error where a program, which ``told`` names, took too much."""
    seen = f"{log} has all it said"
    if over is Over.TIME:
        limit = f"was ended after {settings.time_s:g} s, the limit of [operators] time_s"
        return BadConfig("operator.time", f"{told} {limit}: raise it, or see why it took so long; {seen}.")
    if over is Over.OUTPUT:
        size = f"{settings.output_gb:g} GB ([operators] output_gb), half of the disk's room"
        most = f"{size} or {MOST_FILES} files and folders"
        return BadConfig("operator.output-size", f"{told} was ended, because it wrote more than {most}; {seen}.")
    return BadConfig("operator.failed", f"{told} was ended, because its log grew without end; {seen}.")


def _seen(look: Callable[[], None], growth: WrittenBelow) -> bool:
    look()
    return growth.is_over()


def _watch(pid: int, time_s: float, log: Path, writes_too_much: Callable[[], bool]) -> Over | None:
    """Wait until a process has ended, which is left unburied: until then nobody else has its number."""
    until = time.monotonic() + time_s
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if writes_too_much():
            return Over.OUTPUT
        if time.monotonic() > until:
            return Over.TIME
        if log.stat().st_size > LARGEST_LOG_BYTES:
            return Over.LOG
        time.sleep(LOOK_S)
    return None


def _end(guard: subprocess.Popen[bytes]) -> None:
    """End what runs: the guard ends the program and its container, and whatever is left of the group is killed."""
    if guard.stdin:
        with suppress(OSError):
            guard.stdin.close()
    until = time.monotonic() + program_guard.STOP_S
    while os.waitid(os.P_PID, guard.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None and time.monotonic() < until:
        time.sleep(LOOK_S / 10)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(guard.pid, signal.SIGKILL)
    guard.wait()


def last_lines(log: Path) -> str:
    """The end of a log in one line, for a message."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4 * LAST_CHARACTERS))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:])[-LAST_CHARACTERS:]
