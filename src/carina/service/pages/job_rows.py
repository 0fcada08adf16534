"""The row of a job on the worklist, and what the row and the job's own page say alike, as HTML.

It is put together here and not by a template, which takes eight times as long for the fifty rows of a page. Every text
of others goes through ``escape``. Who looks is not known here: what they may do with a job stands in the templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape

from carina.deliver.ledger import DeliveryState
from carina.jobs.listing import Job
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.reading import Decided, Reading
from carina.measure.texts import percent_text
from carina.receive.store import ArrivalState
from carina.service.arrivals import Arrival
from carina.service.local_time import local_text, minute_text, seconds_words
from carina.service.pages.deliveries import Sending
from carina.service.pages.state_words import READING_WORDS, STATE_WORDS, canceled_words
from carina.service.problems import as_sentence, without_source


class RunProgress(NamedTuple):
    """How far the run of a job is that is at work: ``done`` of ``operators`` have ended, ``busy`` are at work."""

    done: int = 0
    operators: int = 0
    busy: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job as a row; ``series`` describes its input, ``series_end`` is the end of its series' UID.

    ``arrival`` counts what it runs on, with what came of the series in others.
    """

    job: Job
    series: str
    series_end: str
    is_uploaded: bool
    arrival: Arrival | None
    progress: RunProgress
    deliveries: Mapping[str, Sending]

    def cells(self, *, is_project_named: bool) -> Markup:
        """Its cells, without those in which something is ticked or pressed."""
        cells = {
            "Series": self._series(is_project_named=is_project_named),
            "State": self._state(),
            "Readers": read_by(self.job),
            "Began, took": _times(self.job),
            "Deliveries": self._deliveries(),
        }
        whens = {"Began, took": ' class="when"'}
        return Markup("\n".join(f'<td{whens.get(name, "")} data-name="{name}">{it}</td>' for name, it in cells.items()))

    def _series(self, *, is_project_named: bool) -> str:
        job = self.job
        end = f"series &hellip;{escape(self.series_end)}, " if self.series_end else ""
        project = escape(job.project) if is_project_named else ""
        where = f'project <a href="/projects/{project}">{project}</a>, ' if project else ""
        supersedes = f", supersedes job {job.supersedes}" if job.supersedes else ""
        came = came_by(self.arrival, is_uploaded=self.is_uploaded)
        said = f"{end}{where}pipeline {escape(job.pipeline)}, {came}{supersedes}"
        return f'{escape(self.series)}<br><span class="fine">{said}</span>'

    def _state(self) -> str:
        job, run = self.job, self.progress
        said = [state_of(job.shown_state)]
        if job.warnings:
            words = _counted(job.warnings, "warning")
            said.append(Markup(f' <span class="late" title="{escape(job.first_warning)}">{words}</span>'))
        said.append(came_to(job))
        if job.state is JobState.PENDING:
            again = f", tried again at {local_text(job.not_before)}" if job.not_before else ""
            said.append(Markup(f'<span class="fine">priority {job.priority}{again}</span>'))
        if run.operators:
            said.append(_how_far(job.id, run))
        return "\n".join([*said, why_of(job)])

    def _deliveries(self) -> str:
        if not self.deliveries:
            return f'<span class="fine">none{"" if self.job.state is JobState.STOPPED else " yet"}</span>'
        return "".join(
            f'<span class="line">{escape(name)}: {sent_of(one.states)}</span>'
            + (f'<p class="why fine">{escape(as_sentence(one.why))}</p>' if one.why else "")
            for name, one in self.deliveries.items()
        )


def came_by(arrival: Arrival | None, *, is_uploaded: bool, used: int | None = None) -> Markup:
    """How many instances a job runs on and from whom, or by which other way its input came; how many are ``used``."""
    if arrival is None:
        return Markup("uploaded" if is_uploaded else "by path")
    if arrival.state is ArrivalState.REMOVED:
        return Markup(f"from {escape(arrival.sender)}, instances removed")
    read = "" if used is None or used == arrival.instances else f", of which {used} were read"
    return Markup(f"{_counted(arrival.instances, 'instance')} from {escape(arrival.sender)}{read}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _how_far(job_id: int, run: RunProgress) -> Markup:
    words, busy = f"{run.done} of {run.operators}", f": {escape(run.busy)}" if run.busy else ""
    label = f"Operators of job {job_id} that have ended"
    bar = f'<progress max="{run.operators}" value="{run.done}" aria-label="{label}">{words}</progress>'
    return Markup(f'<br>{bar} <span class="fine">{words}{busy}</span>')


def _times(job: Job) -> str:
    if job.started_at is None:
        return f'<span class="fine">came {local_text(job.created_at)}</span>'
    took = seconds_words((job.stopped_at - job.started_at).total_seconds()) if job.stopped_at else ""
    return f'{local_text(job.started_at)}<br><span class="fine">{took}</span>'


_STATES = {state: Markup(f'<span class="state {word}">{word}</span>') for state, word in STATE_WORDS.items()}


def state_of(state: str) -> Markup:
    """The state of a job."""
    return _STATES[state]


def why_of(job: Job, look: str = "why") -> Markup:
    """Why a job failed or was canceled; empty where it was not."""
    if job.ended == JobEnd.CANCELED:
        return Markup(f'<span class="line fine">{escape(canceled_words(job))}</span>')
    if job.state is JobState.RUNNING and job.error.startswith("canceled: "):
        return Markup('<span class="line fine">being canceled</span>')
    if not job.error:
        return Markup()
    why = escape(as_sentence(without_source(job.error, job.source)))
    return Markup(f'<p class="{look}">{why} <span class="code">{escape(job.error_code)}</span></p>')


def sent_of(states: Mapping[DeliveryState, int]) -> Markup:
    """How many objects are confirmed by a destination, and what of the others."""
    said = [f"{states.get(DeliveryState.CONFIRMED, 0)} of {sum(states.values())} confirmed"]
    if sent := states.get(DeliveryState.SENT):
        said.append(f"{sent} sent")
    if waiting := states.get(DeliveryState.WAITING):
        said.append(f'<b class="late">{waiting} waiting</b>')
    if failed := states.get(DeliveryState.FAILED):
        said.append(f'<b class="bad">{failed} failed</b>')
    return Markup(f'<span class="sent">{", ".join(said)}</span>')


def read_by(job: Job) -> Markup:
    """What readers decided about a job's result, by whom, the newest first."""
    if not job.reading:
        words = "nothing to read" if job.state is JobState.STOPPED else "not yet"
        return Markup(f'<span class="fine">{words}</span>')
    words, number = job.read_words, job.readers
    several = f' <span class="fine">{number} readers</span>' if number > 1 else ""
    state = f'<span class="state {escape(job.reading)}">{escape(READING_WORDS.get(words, words))}</span>'
    lines = (f'<span class="line fine">{escape(_decided(one))}</span>' for one in job.decisions)
    return Markup("".join([state, several, *lines]))


def _decided(one: Decided) -> str:
    why = f": {one.reason}" if one.reason else ""
    return f"{one.layer} {one.words} by {one.by}, {minute_text(one.at)}{why}"


def came_to(job: Job) -> Markup:
    """What the run of a job found, in short; empty where it has measured and classified nothing."""
    said = ", ".join(_findings(job))
    return Markup(f'<span class="line fine">{said}</span>') if said else Markup()


def _corrected(job: Job) -> Iterator[str]:
    """The corrections with which a ratio that holds was measured: the last of each mask."""
    last = {one.layer: one.correction for one in sorted(job.decisions, key=lambda one: one.correction)}
    named = [f"{layer} correction {number}" for layer, number in sorted(last.items()) if number]
    if named:
        yield escape(" and ".join(named))


def _findings(job: Job) -> Iterator[str]:
    by_network = "" if job.ratio_percent is None else f"{escape(percent_text(job.ratio_percent))} %"
    if job.reader_ratio_percent is not None:
        measured = [*_corrected(job), *([f"{by_network} by the network"] if by_network else [])]
        beside = f" ({'; '.join(measured)})" if measured else ""
        by_reader = escape(percent_text(job.reader_ratio_percent))
        yield f"<b>{by_reader} %</b> of the lungs marked, corrected by a reader{beside}"
    elif by_network:
        whose = " by the network" if job.reading in (Reading.CORRECTED, Reading.REJECTED) else ""
        yield f"{by_network} of the lungs marked{whose}"
    if job.is_classified is not None:
        yield "classified" if job.is_classified else "not classified"
