"""What the pages that correct masks must be told: by a node for the runs of its jobs, by a command for one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from carina.api.result import Run
from carina.api.study import choose_series
from carina.dicom.series import Source
from carina.errors import BadConfig
from carina.jobs.sources import GoneSource


@dataclass(frozen=True, kw_only=True)
class Correcting:
    """What the pages must be told to let masks be corrected.

    ``source`` gives what a run was made from, for the new object; None where that is a volume file. ``reader`` gives
    who is logged in, empty where nobody need be: the page then asks for a name, ``offered`` first. ``note`` enters a
    deed in an audit trail, ``decided`` takes notice of a decision. ``send`` sends an object out and says to where,
    where there is a way, and ``may_send`` whether whoever asks may; ``withdraw`` takes one back that nobody has begun
    to send, and says for whom it waited. ``destinations`` are those that it would be sent to, by name, and
    ``sendings`` what became of each that was to be sent, by its SOP Instance UID.
    ``is_source_known`` says that a series to look for was named at all, ``gone`` that it can't be read any more.
    """

    source: Callable[[Request, Run], Source | None]
    reader: Callable[[Request], str] = lambda _: ""
    offered: Callable[[Request], str] = lambda _: ""
    note: Callable[[Request, str], None] = lambda _request, _deed: None
    decided: Callable[[Request, Run], None] = lambda _request, _run: None
    send: Callable[[Request, Path], str] | None = None
    may_send: Callable[[Request], bool] = lambda _: True
    withdraw: Callable[[Request, Path], Sequence[str]] = lambda _request, _path: ()
    destinations: Callable[[Request], Sequence[str]] = lambda _: ()
    sendings: Callable[[Request], Mapping[str, str]] = lambda _: {}
    is_source_known: bool = True
    gone: Callable[[Request, Run], GoneSource | None] = lambda _request, _run: None


def is_of_volume_file(run: Run) -> bool:
    """Whether a run was made from a volume file, of whose study no object can be."""
    return run.manifest.inputs.get("kind") == "volume file"


def source_of_run(run: Run, path: Path | None) -> Source | None:
    """The series from which a run was made, below a path; None of a run that was made from a volume file.

    Of a run that took the patient out it is the series without the patient, for the correction's object to be of.

    Raises:
        BadConfig: ``corrections.no-source``, no path is known; ``run.no-series``.
        BadSeries: the series is not there, or can't be used.
    """
    if is_of_volume_file(run):
        return None
    if run.is_deidentified:
        return run.deidentified()
    if path is None:
        raise BadConfig(
            "corrections.no-source",
            "a DICOM Segmentation needs the series from which the run was made: start carina view with --source and "
            "the folder from which the run or the cohort was made, then finish; every stroke is kept.",
        )
    return choose_series(path, uid=str(run.manifest.inputs.get("series_uid", "")))


def gone_from(how: Correcting, request: Request, run: Run) -> GoneSource | None:
    """What became of the series that a correction's object would need, where it can't be read; else None."""
    return None if run.is_deidentified or is_of_volume_file(run) else how.gone(request, run)
