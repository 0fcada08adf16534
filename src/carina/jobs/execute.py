"""One attempt of one job, in a process of its own: ``python -m carina.jobs.execute JOB ATTEMPT``.

The process reads the node's settings from its standard input, as a line of JSON, and ends when that is closed, which
happens when its worker dies. It runs the pipeline in the job's folder, where an earlier attempt may have left finished
operators, and stops the job in the same transaction that enters its objects into the delivery ledger.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from sqlalchemy import Connection, Engine, update
from sqlalchemy.exc import SQLAlchemyError

from carina import RESEARCH_ONLY
from carina.api.result import Run
from carina.api.study import RunSettings, run
from carina.config import Settings
from carina.corrections.masks import masks_made
from carina.database import JOB, FolderAway, OwnFolder, database_now, is_away
from carina.database.intact import check_intact
from carina.deliver.ledger import enter
from carina.deliver.onward import Onward
from carina.deliver.unknown_destination import stranded_words
from carina.dicom.voxel_limit import allow_voxels
from carina.errors import BadConfig, CarinaError, DeliveryFailed, keep_trace, kind_and_place, told, without_words
from carina.jobs.belonging import set_run_aside
from carina.jobs.holder import held
from carina.jobs.job_destinations import onward_of
from carina.jobs.listing import Job, find_job
from carina.jobs.machine import whole_machine
from carina.jobs.outcome import outcome_columns
from carina.jobs.places import connected
from carina.jobs.queue import NO_ROOM_TO_RUN, RUN_HELD, Attempt, Failure, JobEnd, JobState, fail, stop
from carina.jobs.reading import await_reader
from carina.jobs.sources import source_of
from carina.jobs.worker import NODE_AWAY
from carina.pipeline.run import Event, What
from carina.sections import RUNS, UPLOADS

MAY_PASS = frozenset(
    {
        RUN_HELD,
        NO_ROOM_TO_RUN,
        "node.memory",
        "triton.away",
        "triton.not-ready",
        "triton.timeout",
    }
)
"""Errors of a run that another try can be rid of."""

TRACE = "bug-attempt.txt"
"""The file in a run's folder with the traceback of what nobody foresaw, and no operator raised."""

LEAST_ROOM = 100_000_000
"""Bytes; a disk with less is full, however little the node is to keep free."""

_LOG = logging.getLogger("carina.jobs")

GIVEN_AWAY = 75
"""Exit code of an attempt that doesn't count any more."""


def execute(settings: Settings, engine: Engine, attempt: Attempt) -> bool:
    """Run a job's pipeline, and say in its row how that ended; False where the attempt doesn't count any more.

    Raises:
        FolderAway: the node's folder is not there, or not any more, which says nothing of the job.
        SQLAlchemyError: the database is away.
    """
    with engine.connect() as connection:
        job = find_job(connection, attempt.job_id)
        if job is None or (job.attempt, job.state) != (attempt.number, JobState.RUNNING):
            return False
        onward = onward_of(connection, job, settings)
    folder = Path(settings.node.folder)
    own = OwnFolder(folder, engine)
    own.check()
    try:
        if job.arrival_id:
            check_intact(engine, folder, job.arrival_id)
        if attempt.number == 1:  # what is there is another job's, of a database that knew more
            set_run_aside(folder, job.id)
        own.make(job.folder)
        finished = run(source_of(folder, job), folder / job.folder, _how(settings, job, onward))
        with own.begin() as connection:
            return _end_well(connection, attempt, job, finished, settings)
    except Exception as error:
        if isinstance(error, SQLAlchemyError) and is_away(error):  # what it has finished is in its folder
            raise
        _check_there(own, job)  # else what was met is that it went
        failure = failure_of(error, folder / job.folder, settings)
    if failure.code == RUN_HELD:
        failure = held(folder / job.folder, attempt)
    _LOG.error("%s: %s", failure.code, failure.message)
    with own.begin() as connection:
        return fail(connection, attempt, failure, database_now(connection))


def _check_there(own: OwnFolder, job: Job) -> None:
    """See that the folder is there; where it is not, an operator may have made the run's anew, which is empty now.

    Raises:
        FolderAway: it is not.
    """
    try:
        own.check()
    except FolderAway:
        with suppress(OSError):  # it is not empty, or was not made
            for place in (own.folder / job.folder, own.folder / RUNS):
                place.rmdir()
        raise


def _how(settings: Settings, job: Job, onward: Onward) -> RunSettings:
    """The run's settings: nothing is sent by it, and its networks take the cores that the job was given."""
    cores = max(1, int(min(job.cores, whole_machine(settings).cores)))  # asked for where it was submitted
    runtime = msgspec.structs.replace(settings.runtime, threads=settings.runtime.threads or cores)
    own = msgspec.structs.replace(settings, destinations={}, runtime=runtime)
    is_uploaded = Path(job.source).parts[:1] == (UPLOADS,)
    uid = job.series_uid if job.arrival_id or is_uploaded else ""  # judged when it arrived, or chosen by somebody
    return RunSettings(settings=own, pipeline=job.pipeline, uid=uid, progress=_tell, onward=onward)


def _tell(event: Event) -> None:
    if event.what is not What.FRACTION:
        _LOG.info("%s: %s %s", event.operator, event.what, event.message)


def _end_well(connection: Connection, attempt: Attempt, job: Job, finished: Run, settings: Settings) -> bool:
    now, outcome = database_now(connection), outcome_columns(finished)
    if not stop(connection, attempt, JobEnd.HEALTHY, now):
        return False
    if not job.arrival_id and not job.series_uid:  # what was run is known now
        outcome |= {"described": None}
    connection.execute(update(JOB).where(JOB.c.id == job.id).values(**outcome))
    if masks_made(finished):
        await_reader(connection, job.id)
    wanted = {name: settings.destinations.get(name) for name in job.destinations}
    enter(connection, job.id, wanted, finished.dicom, folder=Path(settings.node.folder), now=now)
    for name in (name for name, known in wanted.items() if known is None):
        _LOG.warning("%s", stranded_words(name))
    return True


def failure_of(error: Exception, folder: Path, settings: Settings) -> Failure:
    """What an exception of a run means for its job, which quotes nothing that may be of a patient.

    The traceback of what nobody foresaw goes into the run's folder, and to the job's log without what was said.
    Where a run finds no room though the disk has more than the node keeps free, it is the run that is too large.
    """
    file = folder / TRACE
    failure: CarinaError = told(error, [folder], kept=file)
    if failure.trace and failure is not error and not keep_trace(failure, file):
        failure = told(error, [folder], kept="the job's log")
    if failure.places:
        _LOG.error("%s", failure.places)
    may_pass = failure.code in MAY_PASS or isinstance(failure, DeliveryFailed)
    is_outage = failure.code == NO_ROOM_TO_RUN and _is_short_of_room(folder, settings)
    return Failure(failure.code, failure.message, may_pass, is_outage)


def _is_short_of_room(folder: Path, settings: Settings) -> bool:
    """Whether the disk of a run's folder, which may not be that of the node's, is full for every run."""
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    return free < max(settings.node.free_gb * 1e9, LEAST_ROOM)


def _end_with_the_worker(lifeline: BinaryIO) -> None:
    with suppress(OSError, ValueError):
        lifeline.read()
    os._exit(1)  # the worker is gone, and with it whoever would stop this


def main() -> int:
    """Read settings and attempt, and execute."""
    lifeline = os.fdopen(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    settings = msgspec.json.decode(_line(lifeline), type=Settings)
    allow_voxels(settings.limits)
    threading.Thread(target=_end_with_the_worker, args=(lifeline,), daemon=True).start()
    attempt = Attempt(int(sys.argv[1]), int(sys.argv[2]))
    _log_without_data(attempt)
    _LOG.info("attempt %d begins. %s", attempt.number, RESEARCH_ONLY)
    try:
        counts = execute(settings, connected(settings), attempt)
    except BadConfig as error:
        _LOG.error("%s", error.message)
        return NODE_AWAY if isinstance(error, FolderAway) or is_away(error.__cause__) else error.exit_code
    except SQLAlchemyError as error:
        if not is_away(error):
            raise
        _LOG.error("the database is away (%s): the job waits for another attempt.", kind_and_place(error))
        return NODE_AWAY
    if not counts:
        _LOG.warning("the job was given to another worker, canceled or stopped: nothing of this attempt counts.")
    return 0 if counts else GIVEN_AWAY


def _log_without_data(attempt: Attempt) -> None:
    """Let only Carina speak in the job's log: what libraries and exceptions say may quote a patient's data."""
    warnings.filterwarnings("ignore", module="pydicom")
    sys.excepthook = lambda kind, error, trace: _LOG.critical("%s", without_words(error))
    threading.excepthook = lambda ended: _LOG.error("%s", without_words(ended.exc_value) if ended.exc_value else "")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s job {attempt.job_id} %(message)s"))
    logging.getLogger().addHandler(logging.NullHandler())
    ours = logging.getLogger("carina")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)


def _line(stream: BinaryIO) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and (byte := stream.read(1)):
        line += byte
    return bytes(line)


if __name__ == "__main__":
    sys.exit(main())
