"""The options of ``carina jobs list`` that say which jobs are wanted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

import click

STATES = ("pending", "running", "healthy", "faulted", "canceled")
READINGS = ("unread", "accepted", "rejected", "corrected")

_DAY = click.DateTime(["%Y-%m-%d"])


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options, as one ``filtered``."""

    @click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only jobs in this state.")
    @click.option("--reading", type=click.Choice(READINGS), help="Only jobs of which readers decided this.")
    @click.option("--pipeline", default="", help="Only jobs of this pipeline.")
    @click.option("--source", "received_by", default="", help="Only what came by this source of the settings.")
    @click.option("--from", "first", type=_DAY, help="Only studies of this day or later.", metavar="YYYY-MM-DD")
    @click.option("--to", "last", type=_DAY, help="Only studies of this day or earlier.", metavar="YYYY-MM-DD")
    @click.option("--description", default="", help="Only what has this in the description of its study or series.")
    @click.option("--uid", default="", help="Only this Study or Series Instance UID, whole.")
    @click.option("--warnings", "is_warned", is_flag=True, help="Only runs with warnings.")
    @wraps(command)
    def with_filter(
        states: tuple[str, ...], reading: str | None, first: datetime | None, last: datetime | None, **others: Any
    ) -> None:
        from carina.jobs.filtering import JobFilter

        plain = {name: others.pop(name) for name in ("pipeline", "received_by", "description", "uid", "is_warned")}
        filtered = JobFilter(
            states=states,
            reading=reading or "",
            studied_from=first.date() if first else None,
            studied_to=last.date() if last else None,
            **plain,
        )
        command(filtered=filtered, **others)

    return with_filter
