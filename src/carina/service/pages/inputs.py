"""What pages say of what a job runs on: the study's date and the series' description, or a file's name; no patient."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from carina.errors import BadConfig
from carina.jobs.listing import Job
from carina.pipeline.folder import MANIFEST
from carina.pipeline.manifest import read_manifest
from carina.service.arrivals import first_files
from carina.service.dicomweb.attributes import Attributes, header_record, hex_tag
from carina.service.node import RunningNode
from carina.service.upload_series import content_of, is_of_upload

UID_SHOWN = 12
NOT_DESCRIBED = "series without a description"
SHOWN_KEYWORDS = ("StudyDate", "SeriesDescription")
"""What a worklist says of a series: nobody's name."""

MOST_HEADERS = 60
"""Headers of an upload that are read for its series; of more files these are spread over all."""

_WANTED = ("SeriesInstanceUID", *SHOWN_KEYWORDS)


@dataclass(frozen=True, kw_only=True)
class JobInput:
    """What a job runs on, in words, and the UID of its series where that is known."""

    words: str
    series_uid: str = ""


def described_file(file: Path) -> str:
    """What is said of the series of a DICOM file."""
    return _words(header_record(file, SHOWN_KEYWORDS)) or NOT_DESCRIBED


def job_input(node: RunningNode, job: Job, file: str | None) -> JobInput:
    """What a job runs on; ``file`` is the first one of its arrival, relative to the node's folder, if it has one."""
    if file:
        return JobInput(words=described_file(node.folder / file), series_uid=job.series_uid)
    if not is_of_upload(job):
        name = Path(job.source).name
        return JobInput(words=name, series_uid="" if name.startswith(job.series_uid) else job.series_uid)
    return _uploaded(job, content_of(node, job), _inputs_of(node.folder / job.folder / MANIFEST))


def job_words(node: RunningNode, connection: Connection, job: Job) -> str:
    """What a page of one job says of what it runs on."""
    file = first_files(connection, [job.arrival_id]).get(job.arrival_id) if job.arrival_id else None
    return job_input(node, job, file).words


def told_apart(inputs: Sequence[JobInput]) -> list[str]:
    """The words of each; where different series would read the same, with the end of their UIDs."""
    series: dict[str, set[str]] = {}
    for one in inputs:
        series.setdefault(one.words, set()).add(one.series_uid)
    return [
        f"{one.words}, series {one.series_uid[-UID_SHOWN:]}"
        if one.series_uid and len(series[one.words]) > 1
        else one.words
        for one in inputs
    ]


def _uploaded(job: Job, content: Path, run_on: Mapping[str, Any]) -> JobInput:
    """Of an upload: the volume file, or the series that was chosen, by somebody or by the run."""
    uid, files = job.series_uid or str(run_on.get("series_uid", "")), _files_below(content)
    volume = str(run_on.get("file", "")) or _volume_of(files, job.series_uid)
    if volume:
        return JobInput(words=volume)
    found = [header_record(Path(file), _WANTED) for file in _spread(files)]
    words = _of_series(found, uid) if uid else _not_chosen({_words(one) for one in found}, len(files))
    return JobInput(words=words, series_uid=uid)


def _of_series(found: Sequence[Attributes], uid: str) -> str:
    of_it = next((one for one in found if _first(one, "SeriesInstanceUID") == uid), None)
    return "uploaded files" if of_it is None else _words(of_it) or NOT_DESCRIBED


def _not_chosen(words: set[str], number: int) -> str:
    """Of files of which no series was chosen yet: how many there are, and what all of them say."""
    counted = f"{number} file{'' if number == 1 else 's'}"
    alike = next(iter(words)) if len(words) == 1 else ""
    return f"{alike or 'uploaded'}, {counted}"


def _volume_of(files: Sequence[str], name: str) -> str:
    """The volume file that is meant by its name without the ending, or the only file where that is no DICOM."""
    named = [Path(file).name for file in files if name and Path(file).name.partition(".")[0] == name.partition(".")[0]]
    if not named and len(files) == 1 and not _first(header_record(Path(files[0]), _WANTED), "SeriesInstanceUID"):
        named = [Path(files[0]).name]
    return named[0] if named else ""


def _spread(files: Sequence[str]) -> Sequence[str]:
    return files[:: -(-len(files) // MOST_HEADERS) or 1]


@lru_cache(maxsize=500)
def _files_below(content: Path) -> tuple[str, ...]:
    """Every file below a folder that doesn't change any more; none where there is no folder."""
    return tuple(sorted(f"{place}/{name}" for place, _, names in os.walk(content) for name in names))


def _inputs_of(manifest: Path) -> Mapping[str, Any]:
    try:
        return _read_inputs(manifest, manifest.stat().st_mtime_ns)
    except (OSError, BadConfig):
        return {}


@lru_cache(maxsize=500)
def _read_inputs(manifest: Path, _modified: int) -> Mapping[str, Any]:
    found = read_manifest(manifest.parent)
    return found.inputs if found else {}


def _words(record: Attributes) -> str:
    date, description = (_first(record, keyword) for keyword in SHOWN_KEYWORDS)
    if len(date) == 8 and date.isdigit():
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    return ", ".join(filter(None, (date, description)))


def _first(record: Attributes, keyword: str) -> str:
    values: Sequence[object] = record[hex_tag(keyword)].get("Value", ())
    return str(values[0]) if values and values[0] is not None else ""
