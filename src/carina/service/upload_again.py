"""Whether what a job runs on was run here before, whichever way it came then."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import and_, case, or_

from carina.database import JOB, read_only
from carina.jobs.listing import JOBS, Job, job_of
from carina.jobs.queue import JobEnd
from carina.receive.uploads import files_below
from carina.service.dicomweb.attributes import header_record, hex_tag
from carina.service.node import RunningNode
from carina.service.upload_series import content_of, is_of_upload, taken_series

FILES_LOOKED_AT = 60
"""Files of an upload that are looked at, spread over all."""

MOST_JOBS = 100
"""Jobs that the same is looked for among, the latest ones."""

_SERIES = "SeriesInstanceUID"
_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)


def run_before(node: RunningNode, job: Job) -> int | None:
    """The latest job before this one, of the same pipeline, on its series, or of an upload on the same volume file.

    One that had ended well when this one came is named before any that ran or waited then, however that ended: who asks
    later is told of the same. Of an upload of which no series is chosen yet, on the one that a run will choose: what is
    said of it before and after is the same. Jobs that failed or were canceled are left out; so is what whoever asks
    doesn't see.
    """
    files = _some_files(content_of(node, job)) if is_of_upload(job) else []
    uids = _wanted_series(node, job, files)
    names = [] if uids else [file.name for file in files]
    if not uids and not names:
        return None
    known = (JOB.c.id < job.id, JOB.c.pipeline == job.pipeline, JOB.c.ended.in_(("", JobEnd.HEALTHY)))
    # what an upload holds is not in its row before its run has ended
    alike = [JOB.c.described.is_(None), JOB.c.series_uid.in_(uids), *([JOB.c.described.in_(names)] if names else [])]
    had_ended = and_(JOB.c.ended == JobEnd.HEALTHY, JOB.c.stopped_at <= job.created_at)
    best_first = case((had_ended, 0), else_=1), JOB.c.id.desc()
    wanted = JOBS.where(*known, or_(*alike)).order_by(*best_first).limit(MOST_JOBS)
    with read_only(node.engine) as connection:
        others = [job_of(row) for row in connection.execute(wanted)]
    return next((one.id for one in others if _is_same(node, one, uids, files)), None)


def _wanted_series(node: RunningNode, job: Job, files: Sequence[Path]) -> frozenset[str]:
    """The series that a job runs on, or will; those of its files where none can be run; none of a volume file."""
    held = _series_uids(files)
    chosen = frozenset([job.series_uid] if _UID.fullmatch(job.series_uid) else [])
    if held & chosen or not files:
        return chosen
    if len(held) > 1:
        settings = node.settings
        held = held & taken_series(content_of(node, job), settings.series_rules, settings.limits.voxels) or held
    return held


def _is_same(node: RunningNode, other: Job, uids: frozenset[str], files: Sequence[Path]) -> bool:
    if uids and other.series_uid:
        return other.series_uid in uids
    if not is_of_upload(other):
        return False
    theirs = _some_files(content_of(node, other))
    if uids:
        return bool(uids & _wanted_series(node, other, theirs))
    named = {file.name: file for file in theirs}
    return any(file.name in named and _is_alike(file, named[file.name]) for file in files)


def _is_alike(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # removed meanwhile
        return False


def _some_files(content: Path) -> list[Path]:
    files = sorted(files_below(content))
    return files[:: -(-len(files) // FILES_LOOKED_AT) or 1]


def _series_uids(files: Sequence[Path]) -> frozenset[str]:
    found = (header_record(file, (_SERIES,))[hex_tag(_SERIES)].get("Value", ()) for file in files)
    return frozenset(str(values[0]) for values in found if values)
