"""Whether a process has ended; one that nobody has buried yet has."""

from __future__ import annotations

from pathlib import Path

from waiting import wait_until


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(process: int) -> bool:
    """That a process has ended, once it has."""
    wait_until(lambda: not is_alive(process))
    return True
