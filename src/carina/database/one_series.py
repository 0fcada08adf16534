"""What counts as one series: a Series Instance UID under one Study Instance UID.

UIDs are unique (PS3.5 9), and yet phantoms, scans that were sent anew and careless tools bring two studies under one
Series Instance UID. Each of them is a series of its own: what joins what, and what is run with what, goes by both.
"""

from __future__ import annotations

from typing import Any, Protocol

from sqlalchemy import ColumnElement, FromClause, Row, and_

from carina.database.tables import ARRIVAL


class UnderUids(Protocol):
    """Anything that says which series of which study it is of."""

    @property
    def series_uid(self) -> str:
        """The Series Instance UID."""

    @property
    def study_uid(self) -> str:
        """The Study Instance UID."""


def is_of_series(one: UnderUids | Row[Any] | FromClause, came: FromClause = ARRIVAL) -> ColumnElement[bool]:
    """Whether arrivals are of the same series as another: a row, a table of rows, or whatever says its UIDs."""
    other: Any = one.c if isinstance(one, FromClause) else one
    return and_(came.c.series_uid == other.series_uid, came.c.study_uid == other.study_uid)
