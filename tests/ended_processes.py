"""Whether a process has ended; one that nobody has buried yet has."""

from __future__ import annotations

import time
from pathlib import Path


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(process: int) -> bool:
    for _ in range(300):
        if not is_alive(process):
            return True
        time.sleep(0.1)
    return False
