"""``carina jobs`` and ``submit``: the jobs of a node, from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from carina.cli.jobs_asked import filter_options
from carina.cli.node import CONFIG, acting_by_command, looked, node_settings, noted
from carina.cli.numbers import BEFORE, NODE_NUMBER
from carina.cli.places import PATH
from carina.cli.terminal import SOME_FAILED, say, say_json, say_table, say_text
from carina.errors import BadConfig

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from carina.config import Settings
    from carina.jobs.filtering import JobFilter
    from carina.jobs.listing import Job
    from carina.jobs.terms import Terms

PRIORITY = click.Choice(["low", "normal", "high", "immediate"])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PROJECT_ONLY = click.option("--project", default="", help="Only jobs of this project.")
JOB_IDS = click.argument("job_ids", type=NODE_NUMBER, nargs=-1, required=True, metavar="ID...")
JOB_ID = click.argument("job_id", type=NODE_NUMBER, metavar="ID")

WAIT_S = 0.5


@click.group()
def jobs() -> None:
    """List, show and change the jobs of a node. For research use only. Not for diagnosis."""


def _node(config: Path | None, *, makes: bool = False) -> tuple[Settings, Engine]:
    """The settings and the database of a node, which has to be there unless it is made."""
    from carina.jobs.places import open_existing_node, open_node_beside

    settings = node_settings(config)
    return settings, (open_node_beside if makes else open_existing_node)(settings)


def _seen(config: Path | None, project: str) -> tuple[Settings, Engine]:
    """A node's settings and its database, of which only one project is seen if one is named.

    Raises:
        BadConfig: there is none of that name.
    """
    from carina.database import seeing
    from carina.jobs.projects import check_project

    settings, engine = _node(config)
    if not project:
        return settings, engine
    with engine.connect() as connection:
        check_project(connection, project)
    return settings, seeing(engine, frozenset({project}))


def _find(connection: Connection, job_id: int) -> Job:
    from carina.jobs.listing import find_job

    job = find_job(connection, job_id)
    if job is None:
        raise BadConfig("job.unknown", f"job {job_id}: there is none; carina jobs list shows those there are.")
    return job


@jobs.command("list")
@filter_options
@PROJECT_ONLY
@BEFORE
@click.option("--count", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Jobs at most.")
@AS_JSON
@CONFIG
def list_(
    filtered: JobFilter, project: str, before: int | None, count: int, as_json: bool, config: Path | None
) -> None:
    """List jobs, the latest first."""
    import msgspec

    from carina.jobs.filtering import ROWS_LOOKED_AT
    from carina.jobs.listing import list_jobs
    from carina.service.filters import check_filter

    settings, engine = _seen(config, project)
    with engine.connect() as connection:
        filtered = check_filter(connection, settings, filtered)
    looked(engine, "jobs")
    with engine.connect() as connection:
        page = list_jobs(connection, filtered, before=before, at_most=count)
    if as_json:
        say_json(msgspec.to_builtins(page.jobs))
    else:
        say_table(_COLUMNS, [_row(job) for job in page.jobs])
    if page.next and len(page.jobs) < count:
        say(f"{ROWS_LOOKED_AT} jobs were looked at; there are more: add --before {page.next}", err=True)


@jobs.command("count")
@PROJECT_ONLY
@CONFIG
def count_(project: str, config: Path | None) -> None:
    """Count the jobs by state."""
    from carina.jobs.listing import job_counts

    _, engine = _seen(config, project)
    with engine.connect() as connection:
        counts = job_counts(connection)
    say(*(f"{state}: {number}" for state, number in counts.items()))


_OF_JOB = ("id", "state", "priority", "pipeline", "created", "attempt")
_COLUMNS = (*_OF_JOB, "series", "ratio %", "warnings", "readers", "error")


def _row(job: Job) -> tuple[str, ...]:
    created = f"{job.created_at.astimezone():%Y-%m-%d %H:%M}"
    return (
        str(job.id),
        job.shown_state,
        job.priority,
        job.pipeline,
        created,
        str(job.attempt),
        job.described or "",
        _ratio(job),
        str(job.warnings or ""),
        _read_by(job),
        job.error_code,
    )


def _ratio(job: Job) -> str:
    """The ratio that holds: where readers corrected it theirs, and the network's beside it."""
    from carina.measure.texts import percent_text

    by_network = "" if job.ratio_percent is None else percent_text(job.ratio_percent)
    if job.reader_ratio_percent is None:
        return by_network
    return f"{percent_text(job.reader_ratio_percent)} corrected (network {by_network or 'none'})"


def _read_by(job: Job) -> str:
    """What readers decided, and how many where they are more than one."""
    return f"{job.read_words} ({job.readers} readers)" if job.readers > 1 else job.read_words


@jobs.command()
@JOB_ID
@AS_JSON
@CONFIG
def show(job_id: int, as_json: bool, config: Path | None) -> None:
    """Show everything about a job, and what it was compared with."""
    import msgspec

    from carina.jobs.comparison import comparison_of
    from carina.jobs.kept import job_files
    from carina.jobs.superseding import successor_of, successor_words
    from carina.service.arrivals import arrival_read, instances_read
    from carina.service.progress import files_used, manifest_in

    settings, engine = _node(config)
    with engine.connect() as connection:
        job, folder = _find(connection, job_id), Path(settings.node.folder)
        compared, files = comparison_of(connection, folder, job), job_files(connection, folder, job)
        instances = instances_read(arrival_read(connection, folder, job))
        successor, used = successor_of(connection, job), files_used(manifest_in(folder, job))
    looked(engine, f"job {job_id}")
    if as_json:
        beside = {"compared": msgspec.to_builtins(compared), "files": msgspec.to_builtins(files)}
        beside |= {"instances": instances, "used": used, "superseded_by": successor.id if successor else None}
        say_json(msgspec.to_builtins(job) | beside)
        return
    for name, value in msgspec.structs.asdict(job).items():
        if value not in (None, "", ()) and name != "decisions":
            say(f"{name}: {', '.join(value) if isinstance(value, tuple) else value}")
    say(*_instances_lines(instances, used))
    say(*([f"superseded: job {successor.id} {successor_words(successor)}"] if successor else []))
    say(*([f"files: {files.said}"] if files.said else []), *compared.lines, *_decided_lines(job))


def _instances_lines(instances: int | None, used: int | None) -> list[str]:
    """How many instances a run is given, and how many it read where these are others."""
    if instances is None:
        return []
    return [f"instances: {instances}", *([] if used in (None, instances) else [f"used: {used}"])]


def _decided_lines(job: Job) -> list[str]:
    """What readers decided about its masks, by whom, when and why."""
    return [
        f"{one.layer} mask: {one.words} by {one.by}, {one.at.astimezone():%Y-%m-%d %H:%M}"
        + (f": {one.reason}" if one.reason else "")
        for one in job.decisions
    ]


def _change(
    config: Path | None, job_ids: Sequence[int], action: str, change: Callable[[Connection, int], bool], otherwise: str
) -> None:
    """Change jobs, each in a transaction; of those that can't be changed, say what they are instead.

    Raises:
        BadConfig: there is no such job, or it is in another state; the others are changed all the same.
    """
    _, engine = _node(config)
    acting_by_command()
    refused: list[BadConfig] = []
    for job_id in dict.fromkeys(job_ids):
        try:
            _change_one(engine, job_id, action, change, otherwise)
        except BadConfig as error:
            refused.append(error)
    if refused:
        raise BadConfig(refused[0].code, *(error.message for error in refused))


def _change_one(
    engine: Engine, job_id: int, action: str, change: Callable[[Connection, int], bool], otherwise: str
) -> None:
    from carina.jobs import queue
    from carina.service.changes import audit

    with engine.begin() as connection:
        state = _find(connection, job_id).shown_state
        if not change(connection, job_id):
            why = (action == "retry" and queue.removal_words(connection, job_id)) or f"{otherwise}."
            raise BadConfig("job.state", f"job {job_id} is {state}: {why}")
        audit(connection, "changed", f"job {job_id}: {action}")
        became = _find(connection, job_id).shown_state
    say(f"job {job_id}: {became}")


@jobs.command()
@JOB_IDS
@CONFIG
def cancel(job_ids: tuple[int, ...], config: Path | None) -> None:
    """Stop jobs that wait or run."""
    from carina.database import database_now
    from carina.jobs import queue

    cancel_it = lambda it, job_id: queue.cancel(it, job_id, database_now(it))  # noqa: E731
    _change(config, job_ids, "cancel", cancel_it, "only what waits or runs is canceled")


@jobs.command()
@JOB_IDS
@CONFIG
def retry(job_ids: tuple[int, ...], config: Path | None) -> None:
    """Let faulted or canceled jobs run again; finished operators are kept."""
    from carina.jobs import queue

    _change(config, job_ids, "retry", queue.retry, "only what is faulted or canceled is tried again")


@jobs.command()
@JOB_IDS
@click.argument("wanted", type=PRIORITY, metavar="PRIORITY")
@CONFIG
def priority(job_ids: tuple[int, ...], wanted: str, config: Path | None) -> None:
    """Change the priority of jobs that wait: low, normal, high or immediate."""
    from carina.config import Priority
    from carina.jobs import queue

    _change(
        config,
        job_ids,
        f"priority {wanted}",
        lambda it, job_id: queue.set_priority(it, job_id, Priority(wanted)),
        "only what waits has a priority that can be changed",
    )


@jobs.command()
@JOB_ID
@CONFIG
def logs(job_id: int, config: Path | None) -> None:
    """Print the log of a job's latest attempt."""
    from carina.jobs.kept import job_files
    from carina.jobs.places import latest_log

    settings, engine = _node(config)
    with engine.connect() as connection:
        job = _find(connection, job_id)
        files = job_files(connection, Path(settings.node.folder), job)
    log = latest_log(Path(settings.node.folder), job.id, job.attempt)
    if log is None:
        raise BadConfig("job.no-log", f"job {job_id} has no log: {files.log_said}")
    looked(engine, f"log of job {job_id}")
    with log.open(encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            say(line.rstrip("\n"))


@jobs.command()
@JOB_IDS
@CONFIG
def wait(job_ids: tuple[int, ...], config: Path | None) -> None:
    """Wait until jobs have stopped; exit code 3 unless all are healthy."""
    _, engine = _node(config)
    waiting, ends = list(job_ids), []
    while waiting:
        with engine.connect() as connection:
            found = [_find(connection, job_id) for job_id in waiting]
        for job in found:
            if job.ended:
                say(f"job {job.id}: {job.ended}", *([f"  {job.error}"] if job.error else []))
                ends.append(job.ended)
        waiting = [job.id for job in found if not job.ended]
        if waiting:
            time.sleep(WAIT_S)
    if set(ends) != {"healthy"}:
        sys.exit(SOME_FAILED)


@jobs.command()
@click.argument("file", type=PATH)
@click.option("--pipeline", default="", help="Only jobs of this pipeline.")
@CONFIG
def table(file: Path, pipeline: str, config: Path | None) -> None:
    """Write a row for each job into FILE (CSV; - prints it), with what its run found; as carina run --each does."""
    from carina.jobs.table import write_jobs_table
    from carina.service.filters import check_pipeline_filter

    settings, engine = _node(config)
    with engine.connect() as connection:
        pipelines = check_pipeline_filter(connection, settings, pipeline)
    is_printed = str(file) == "-"
    noted(engine, "copied", f"table of jobs: to {'standard output' if is_printed else file.absolute()}")
    counts = write_jobs_table(engine, settings, say_text if is_printed else file, pipelines=pipelines)
    counted = ", ".join(f"{number} {fate}" for fate, number in sorted(counts.items())) or "no jobs"
    say(counted if is_printed else f"{counted}; table: {file}", err=is_printed)


def _terms(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how a job is run, as one value."""

    @click.option("--pipeline", default="default", show_default=True, help="Definition to run: a name or a file.")
    @click.option("--priority", "wanted", type=PRIORITY, default="normal", show_default=True)
    @click.option(
        "--to", "destinations", multiple=True, metavar="NAME", help="Destination of the settings; repeatable."
    )
    @click.option("--project", default="default", show_default=True, help="The project that it belongs to.")
    @wraps(command)
    def with_terms(pipeline: str, wanted: str, destinations: tuple[str, ...], project: str, **others: object) -> None:
        from carina.config import Priority
        from carina.jobs.terms import Terms

        terms = Terms(pipeline=pipeline, priority=Priority(wanted), destinations=destinations, project=project)
        command(terms=terms, **others)

    return with_terms


@click.command()
@click.argument("path", type=PATH)
@_terms
@click.option(
    "--each", type=click.Choice(["folder"]), help="A job for each folder and volume file directly below PATH."
)
@CONFIG
def submit(path: Path, terms: Terms, each: str | None, config: Path | None) -> None:
    """Hand a series to the node: the best one below PATH, as carina run would take it. Prints the job's id.

    With --each folder a cohort: what has a job of this pipeline already is left out, so the same command resumes.
    """
    from carina.database import database_now
    from carina.jobs.projects import check_project
    from carina.jobs.queue import submit as put
    from carina.jobs.request import new_job, submit_cohort
    from carina.service.changes import audit

    def told(connection: Connection, job_ids: Sequence[int]) -> None:
        for job_id in job_ids:
            audit(connection, "changed", f"job {job_id}: submitted")

    settings, engine = _node(config, makes=True)
    acting_by_command()
    with engine.connect() as connection:
        check_project(connection, terms.project)
    if each is not None:
        submitted, known = submit_cohort(engine, path, settings, terms, told)
        say(f"{submitted} submitted, {known} had a job already")
        return
    job = new_job(path, settings, terms)
    with engine.begin() as connection:
        job_id = put(connection, job, database_now(connection))
        told(connection, [job_id])
    say(job_id)
