"""Times that lie further ahead than they can: the clock was set back since they were written.

What waits until such a time is due now, and what was last heard of at one is taken to be heard of now. Without that,
everything would stand still for as long as the step was, and a restart would not help.
A step that is shorter than the longest that a time can lie ahead is not told from a wait: it lengthens that by itself,
to an hour at most for jobs.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Column, ColumnElement, Connection, or_, update

DRIFT = timedelta(minutes=1)
"""The clocks of several machines that share a database may differ by this much."""


def is_due(not_before: Column[datetime], now: datetime, longest: timedelta) -> ColumnElement[bool]:
    """Whether a row has waited until its time; ``longest`` is the longest that it can have been told to wait."""
    return or_(not_before.is_(None), not_before <= now, not_before > now + longest + DRIFT)


def is_resting(until: datetime | None, now: datetime, longest: timedelta) -> bool:
    """The opposite, of a time that is kept in memory."""
    return until is not None and now < until <= now + longest + DRIFT


def draw_in(connection: Connection, column: Column[datetime], rows: ColumnElement[bool], latest: datetime) -> None:
    """Set a time of these rows to the latest that it can be, where it is later."""
    connection.execute(update(column.table).where(rows, column > latest).values({column: latest}))
