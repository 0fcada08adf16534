"""Who holds a run's folder that an attempt is to write: the process of an earlier attempt, which stood still.

Such a process counts no more, but keeps the folder's lock until it wakes or ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from carina.jobs.attempt_process import EXECUTE
from carina.jobs.queue import RUN_HELD, Attempt, Failure
from carina.pipeline.folder import LOCK

PROCESSES = Path("/proc")
"""Where Linux says what runs, with which arguments, and what it has open."""

ELSEWHERE = (
    "a process of an earlier attempt stands still on another machine, or in another container, and holds the run's "
    "folder: the job is tried until that ends. End the worker that stands still."
)


def held(folder: Path, attempt: Attempt) -> Failure:
    """Why an attempt found its run's folder held; what holds it is ended where it is an earlier attempt's, and here."""
    pids = _end_earlier(folder / LOCK, attempt)
    here = f"the process of an earlier attempt ({', '.join(map(str, pids))}) stood still and held the run's folder"
    return Failure(RUN_HELD, f"{here}: it was ended." if pids else ELSEWHERE, may_pass=True, is_outage=True)


def _end_earlier(lock: Path, attempt: Attempt) -> list[int]:
    """End the processes of earlier attempts of the job that have the lock open; gives their ids.

    Those of other users and machines are not seen.
    """
    ended = []
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is somebody else's
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            if _is_earlier(arguments, attempt) and any(one.samefile(lock) for one in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
                ended.append(int(process.name))
    return ended


def _is_earlier(arguments: Sequence[str], attempt: Attempt) -> bool:
    """Whether a command line is that of an earlier attempt of the same job."""
    *command, job_id, number = arguments if len(arguments) > len(EXECUTE) else ("", "", "")
    is_of_job = tuple(command[1:]) == EXECUTE[1:] and job_id == str(attempt.job_id)
    return is_of_job and number.isdecimal() and int(number) < attempt.number
