"""``carina worker``: runs the jobs of a node's queue."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from carina.cli.node import CONFIG, node_settings
from carina.cli.terminal import STOPPED_BY

ENDED_EARLY = "asked to end before the queue was empty: the same command takes up what is left"

_LOG = logging.getLogger(__name__)

LONGEST_WORKER_NAME = 128
"""Characters that the table has for who runs a job."""


def _worker_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    """The name; an empty or longer one, or one that can't be shown, is refused as wrong usage."""
    if value is None:
        return ""
    if not value.strip() or len(value) > LONGEST_WORKER_NAME or not value.isprintable():
        raise click.BadParameter(f"expected 1 to {LONGEST_WORKER_NAME} characters that can be shown.", ctx, param)
    return value


@click.command()
@click.option("--until-empty", is_flag=True, help="End when no job waits or runs any more.")
@click.option("--name", callback=_worker_name, help="What the table shows as who runs a job; default: HOST:PID.")
@CONFIG
def worker(until_empty: bool, name: str, config: Path | None) -> None:
    """Run the jobs of the node's queue, as many at once as memory and cores allow.

    On one machine, carina serve does this itself; on others, with a PostgreSQL database and a shared folder, start one
    worker each. Under Slurm, memory and cores are those that Slurm granted. With --until-empty the exit code is 143 (of
    Ctrl-C 130) where it is asked to end before that.
    """
    from carina.jobs.coming_up import await_folder, open_node_once_there
    from carina.jobs.machine import within_slurm
    from carina.jobs.one_host import worked_on_here
    from carina.jobs.places import check_beside
    from carina.jobs.worker import Worker
    from carina.service.logs import log_to

    log_to()
    settings = node_settings(config)
    check_beside(settings)
    signals: list[int] = []
    try:
        await_folder(settings, "worker")
    except KeyboardInterrupt:
        if until_empty:
            raise
        return
    with worked_on_here(settings):  # before the database is opened, which two machines may not do
        try:
            engine = open_node_once_there(settings, "worker")
        except KeyboardInterrupt:  # asked to end while it waits for the database
            if until_empty:
                raise
            return
        it = Worker(within_slurm(settings, os.environ), engine, name=name)

        def stop(number: int, _: FrameType | None) -> None:
            signals.append(number)
            it.stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        it.go(until_empty=until_empty)
    if until_empty and signals:  # with 0, Slurm and Kubernetes would take the queue for empty
        _LOG.warning(ENDED_EARLY, extra={"signal": signal.Signals(signals[0]).name})
        sys.exit(STOPPED_BY + signals[0])
