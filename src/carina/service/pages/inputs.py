"""What pages say of what a job runs on: the study's date and the series' description, or a file's name; no patient.

A job's row says it; only where that is still to be read are files opened here.
"""

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
from carina.jobs.scan import NOTHING_SAID, SCAN_KEYWORDS, KnownScan, path_words, scan_of_header
from carina.jobs.sources import source_of
from carina.pipeline.folder import MANIFEST
from carina.pipeline.manifest import read_manifest
from carina.service.arrivals import first_files
from carina.service.dicomweb.attributes import header_record, hex_tag
from carina.service.dicomweb.json_values import Attributes
from carina.service.node import RunningNode
from carina.service.upload_series import content_of, is_of_upload

UID_SHOWN = 12
MOST_HEADERS = 60
"""Headers of a folder that are read for its series; of more files these are spread over all."""

_WANTED = ("SeriesInstanceUID", *SCAN_KEYWORDS)


@dataclass(frozen=True, kw_only=True)
class JobInput:
    """What a job runs on, in words, with the UID of its series and what its header says where that is known."""

    words: str
    series_uid: str = ""
    scan: KnownScan = NOTHING_SAID

    @property
    def series_end(self) -> str:
        """The end of its series' UID, which tells apart what reads the same; empty of a volume file."""
        return self.series_uid[-UID_SHOWN:] if self.series_uid.replace(".", "").isdigit() else ""


def described_file(file: Path) -> str:
    """What is said of the series of a DICOM file."""
    return _scan(header_record(file, _WANTED)).called


def job_input(node: RunningNode, job: Job, file: str | None) -> JobInput:
    """What a job runs on; ``file`` is the first one of its arrival, relative to the node's folder, if it has one."""
    is_by_path = not job.arrival_id and not is_of_upload(job)
    if is_by_path or job.described is not None:
        name = Path(job.source).name
        is_named = is_by_path and name.startswith(job.series_uid)
        return JobInput(words=job.described or name, series_uid="" if is_named else job.series_uid)
    return read_input(node, job, file)


def read_input(node: RunningNode, job: Job, file: str | None) -> JobInput:
    """The same, read from its files whatever its row says, with the scan."""
    if job.arrival_id:
        scan = _scan(header_record(node.folder / file, _WANTED)) if file else NOTHING_SAID
        return JobInput(words=scan.called, series_uid=job.series_uid, scan=scan)
    run_on = _inputs_of(node.folder / job.folder / MANIFEST)
    if is_of_upload(job):
        return _uploaded(job, content_of(node, job), run_on)
    uid, source = job.series_uid or str(run_on.get("series_uid", "")), source_of(node.folder, job)
    found = _headers([str(source)] if source.is_file() else _files_below(source)) if uid else []
    scan = _scan_of_series(found, uid) or NOTHING_SAID
    return JobInput(words=path_words(source.name, scan), series_uid=uid, scan=scan)


def files_to_read(connection: Connection, jobs: Sequence[Job]) -> Mapping[int, str]:
    """The first file of the arrivals of those jobs that are still to be described, by the arrival."""
    return first_files(connection, [one.arrival_id for one in jobs if one.arrival_id and one.described is None])


def job_words(node: RunningNode, connection: Connection, job: Job) -> str:
    """What a page of one job says of what it runs on."""
    return job_input(node, job, files_to_read(connection, [job]).get(job.arrival_id or 0)).words


def _uploaded(job: Job, content: Path, run_on: Mapping[str, Any]) -> JobInput:
    """Of an upload: the volume file, or the series that was chosen, by somebody or by the run."""
    uid, files = job.series_uid or str(run_on.get("series_uid", "")), _files_below(content)
    volume = str(run_on.get("file", "")) or _volume_of(files, job.series_uid)
    if volume:
        return JobInput(words=volume)
    found = _headers(files)
    if not uid:
        return JobInput(words=_not_chosen({_scan(one).words for one in found}, len(files)))
    scan = _scan_of_series(found, uid)
    words = "uploaded files" if scan is None else scan.called
    return JobInput(words=words, series_uid=uid, scan=scan or NOTHING_SAID)


def _scan_of_series(found: Sequence[Attributes], uid: str) -> KnownScan | None:
    return next((_scan(one) for one in found if _first(one, "SeriesInstanceUID") == uid), None)


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


def _headers(files: Sequence[str]) -> Sequence[Attributes]:
    return [header_record(Path(file), _WANTED) for file in files[:: -(-len(files) // MOST_HEADERS) or 1]]


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


def _scan(record: Attributes) -> KnownScan:
    return scan_of_header({keyword: _first(record, keyword) for keyword in SCAN_KEYWORDS})


def _first(record: Attributes, keyword: str) -> str:
    values: Sequence[object] = record[hex_tag(keyword)].get("Value", ())
    return str(values[0]) if values and values[0] is not None else ""
