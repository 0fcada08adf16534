"""Runs a program until it ends or whoever started it is gone; no module of Carina, so that it starts at once.

``python -I -S program_guard.py HOW WORD...``: HOW is a JSON object; its ``stop`` is the command that ends what the
program left to others (a container), perhaps empty. When the standard input is closed, which happens too when the
starter is killed, or at SIGTERM, the program, that command's victim and the whole process group end. On Linux so does
every process that the program started, whatever group or session it moved to: what loses its parent becomes a child of
the guard (prctl(2), PR_SET_CHILD_SUBREAPER). Not with a ``stop``: an engine's own helpers must outlive it, and the
container holds the rest. Where ``fed`` is true the program gets what comes in on the standard input.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

STOP_S = 60
"""Time that an engine has for ending a container."""

END_S = 20
"""Time in which whatever a program started is killed, generation by generation."""

IS_LINUX = sys.platform == "linux"

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36


def _feed(program: subprocess.Popen[bytes]) -> None:
    """Hand on what comes in, until nothing can any more."""
    while piece := os.read(0, 1 << 16):
        if program.stdin is not None:
            with suppress(OSError):
                program.stdin.write(piece)
                program.stdin.flush()


def _end(program: subprocess.Popen[bytes], stop: list[str], is_over: threading.Event) -> None:
    """End everything, this process too."""
    is_over.set()
    program.kill()
    if stop:
        subprocess.run(stop, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False, timeout=STOP_S)
    else:
        _end_children()
    os.killpg(0, signal.SIGKILL)


def _adopt() -> None:
    """Become the parent of what the program leaves without one."""
    if IS_LINUX:
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_with_the_guard() -> None:
    """In the program, before it begins: be killed when the guard is, which some programs kill (PR_SET_PDEATHSIG)."""
    if IS_LINUX:
        ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_children() -> None:
    """Kill every child until there is none: the children that one leaves become ours.

    Only children are signalled, since nobody else gets the number of one that we haven't buried.
    """
    until = time.monotonic() + (END_S if IS_LINUX else 0)
    while time.monotonic() < until:
        for child in _children():
            with suppress(OSError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _children() -> Iterator[int]:
    own = str(os.getpid())
    for folder in filter(lambda one: one.name.isdigit(), Path("/proc").iterdir()):
        with suppress(OSError):  # it has ended meanwhile
            if (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                yield int(folder.name)


def _wait(program: subprocess.Popen[bytes]) -> int:
    """The program's exit code; whatever ends before it is buried."""
    with suppress(ChildProcessError):  # the other thread buried it
        while True:
            pid, status = os.wait()
            if pid == program.pid:
                return os.waitstatus_to_exitcode(status)
    return 0


def guard() -> int:
    """Run the program; its exit code, or, for one that a signal ended, 128 and the signal's number, as in a shell."""
    how, words = json.loads(sys.argv[1]), sys.argv[2:]
    stop: list[str] = how["stop"]
    if not stop:
        _adopt()
    stdin = subprocess.PIPE if how["fed"] else subprocess.DEVNULL
    program = subprocess.Popen(words, stdin=stdin, preexec_fn=None if stop else _end_with_the_guard)
    is_over = threading.Event()

    def end_with_the_starter() -> None:
        _feed(program)
        _end(program, stop, is_over)

    signal.signal(signal.SIGTERM, lambda number, frame: _end(program, stop, is_over))
    ending = threading.Thread(target=end_with_the_starter, daemon=True)
    ending.start()
    code = _wait(program)
    if not is_over.is_set() and not stop:
        _end_children()
    if is_over.is_set():
        ending.join()  # it ends this process as well
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard())
