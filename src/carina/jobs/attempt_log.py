"""What an attempt's process says, kept within bounds: an operator of others may print without end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

LOGS = "logs"
"""The folder of a node with the logs of its jobs."""

LARGEST_LOG = 64_000_000
"""Bytes of an attempt's log; what is said beyond takes the place of what lies between its beginning and its end."""

KEPT_OF_BEGINNING = 16_000_000


def log_name(job_id: int, attempt: int) -> str:
    """The log of one attempt of a job, below the node's folder."""
    return f"{LOGS}/job-{job_id}-{attempt}.log"


def new_log(log: Path) -> None:
    """Make an attempt's log, empty, in a folder that is there; whoever writes it appends, so that no hole is left.

    Raises:
        OSError: it can't be made.
    """
    log.write_bytes(b"")


def bound_log(log: Path, left_out: int) -> int:
    """Cut a log that has grown too large to its beginning, with a line that says so; what comes then is its end.

    ``left_out`` are the bytes that were before; gives those that are now.
    """
    with suppress(OSError):  # it isn't there, or can't be cut
        size = log.stat().st_size
        if size > LARGEST_LOG:
            left_out += size - KEPT_OF_BEGINNING
            with log.open("ab") as file:
                file.truncate(KEPT_OF_BEGINNING)
                file.write(f"\n({left_out} bytes were left out here: a log has {LARGEST_LOG} at most.)\n".encode())
    return left_out
