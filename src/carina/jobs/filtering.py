"""Which jobs are wanted, and how they are asked for so that an index leads to them.

A UID or study dates lead where they are given: everything else is then written so that no other index is taken in
their place, which without statistics SQLite would do. Else state, pipeline, source and reading lead, newest or oldest
first, and the search stops with the page. A text is looked for in what the others leave, ``ROWS_LOOKED_AT`` rows at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import Column, ColumnElement, literal_column

from carina.database import JOB
from carina.errors import BadConfig
from carina.jobs.queue import JobEnd, JobState

ROWS_LOOKED_AT = 20_000
"""Rows that are looked at for a text before a page ends, with however many it has found."""

_Conditions = list[ColumnElement[bool]]


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted: ``states`` are words of ``shown_state``, ``reading`` is one of ``Reading``; empty: any.

    ``uid`` is a Study or a Series Instance UID, ``description`` a part of what a row calls its series or of the study's
    description, in whatever case. ``received_by`` is a source of the settings. ``is_warned``: with warnings only.
    ``pipelines`` are those that ``pipeline`` stands for, where it is known that it is no more than their name.
    """

    states: Sequence[str] = ()
    reading: str = ""
    pipeline: str = ""
    pipelines: Sequence[str] = ()
    received_by: str = ""
    uid: str = ""
    studied_from: date | None = None
    studied_to: date | None = None
    description: str = ""
    is_warned: bool = False

    def __post_init__(self) -> None:
        """See that dates are in their order.

        Raises:
            BadConfig: ``job.dates``, the first is the later one: nothing would be found.
        """
        if self.studied_from and self.studied_to and self.studied_from > self.studied_to:
            words = f"studies from {self.studied_from} to {self.studied_to} are asked for, and there is no such time"
            raise BadConfig("job.dates", f"{words}: swap the two dates.")

    @property
    def of_series(self) -> JobFilter:
        """What of this can be asked of a series that is no job yet."""
        return replace(self, states=(), reading="", pipeline="", pipelines=(), is_warned=False)

    @property
    def is_led(self) -> bool:
        """Whether a UID or dates lead: what they find is few, or sorted, and not walked through by key."""
        return bool(self.uid or self.studied_from or self.studied_to)

    @property
    def conditions(self) -> list[_Conditions]:
        """One list for each query that is needed.

        Only healthy jobs are read: a state beside that would lead SQLite through every healthy job.
        """
        if self.uid:
            leads: list[_Conditions] = [[JOB.c.study_uid == self.uid], [JOB.c.series_uid == self.uid]]
            return [[*lead, *self._dates(JOB.c.study_date.concat("")), *rest] for lead in leads for rest in self._rest]
        return [[*self._dates(JOB.c.study_date), *rest] for rest in self._rest]

    def _dates(self, column: ColumnElement[str]) -> _Conditions:
        """Of the bounds that are given; a study without a date lies within none."""
        if not (self.studied_from or self.studied_to):
            return []
        first, last = self.studied_from or date.min, self.studied_to or date.max
        return [column.between(first.isoformat(), last.isoformat())]

    @property
    def _rest(self) -> list[_Conditions]:
        """All others, one list for each pipeline and state."""
        named = self.pipelines or ([self.pipeline] if self.pipeline else [])
        each: list[_Conditions] = [[self._beside(JOB.c.pipeline) == one] for one in named] or [[]]
        return [conditions for one in each for conditions in self._of_pipeline(one)]

    def _of_pipeline(self, common: _Conditions) -> list[_Conditions]:
        if self.received_by:
            common.append(self._beside(JOB.c.received_by) == self.received_by)
        if self.is_warned:
            common.append(JOB.c.warnings > literal_column("0"))
        if self.reading:
            is_possible = not self.states or JobEnd.HEALTHY in self.states
            return [[*common, self._beside(JOB.c.reading) == self.reading]] if is_possible else []
        return [[*common, *self._is_shown_as(state)] for state in self.states] or [common]

    def _is_shown_as(self, state: str) -> _Conditions:
        at, ended = self._beside(JOB.c.state), self._beside(JOB.c.ended)
        if state in set(JobEnd):
            return [at == JobState.STOPPED, ended == state]
        return [at == state, ended == ""]

    def _beside(self, column: Column[str]) -> ColumnElement[str]:
        """A column as it is compared: where something else leads, as an expression that has no index."""
        return column.concat("") if self.is_led else column


EVERY_JOB = JobFilter()
