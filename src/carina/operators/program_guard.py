"""Runs a program until it ends or whoever started it is gone; no module of Carina, so that it starts at once.

``python -I -S program_guard.py STOP WORD...``: STOP is a JSON list, the command that ends what the program left to
others (a container), perhaps empty. When the standard input is closed, which happens too when the starter is killed,
the program, that command's victim and the whole process group end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

STOP_S = 60
"""Time that an engine has for ending a container."""


def _end_with_the_starter(program: subprocess.Popen[bytes], stop: list[str], is_over: threading.Event) -> None:
    os.read(0, 1)  # nothing is ever written to it
    is_over.set()
    program.kill()
    if stop:
        subprocess.run(stop, stdin=subprocess.DEVNULL, check=False, timeout=STOP_S)
    os.killpg(0, signal.SIGKILL)


def guard() -> int:
    """Run the program; its exit code, or, for one that a signal ended, 128 and the signal's number, as in a shell."""
    stop, words = json.loads(sys.argv[1]), sys.argv[2:]
    program = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    is_over = threading.Event()
    ending = threading.Thread(target=_end_with_the_starter, args=(program, stop, is_over), daemon=True)
    ending.start()
    code = program.wait()
    if is_over.is_set():
        ending.join()  # it ends this process as well
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(guard())
