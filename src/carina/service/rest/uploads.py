"""Operations on uploads."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from carina.config import Priority
from carina.jobs.listing import Job
from carina.jobs.terms import Terms
from carina.receive.unpack import MOST_MEMBERS
from carina.receive.uploads import Received, Upload
from carina.service import uploads
from carina.service.node import RunningNode
from carina.service.rest.operation import Operation
from carina.service.upload_again import run_before
from carina.service.upload_series import SeriesOfUpload, run_series, series_of_job
from carina.web_settings import DEFAULT_PROJECT

_Id = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
_JobId = Annotated[int, Meta(ge=1, le=2**62)]
_Bytes = Annotated[int, Meta(ge=1, le=2**50)]


class UploadAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An upload announced: a ``key`` of the sender's choice, by which it is found again, how many files and bytes.

    It counts in the share of ``project`` and is run there; without one, it counts in that of a project in which whoever
    asks may run something, and whoever finishes it says where it is run.
    """

    key: Annotated[str, Meta(min_length=1, max_length=128)]
    files: Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
    bytes: _Bytes
    project: Annotated[str, Meta(max_length=64)] = ""


class OneUpload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An upload by its id."""

    id: _Id


class FinishAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run asked for on an upload that has come whole; ``pipeline`` is one that is offered.

    Without ``project`` it is in the only one of whoever asks, where there is such a one, else in the default project.
    """

    id: _Id
    pipeline: Annotated[str, Meta(min_length=1, max_length=4096)] = "default"
    priority: Priority = Priority.NORMAL
    destinations: tuple[Annotated[str, Meta(max_length=64)], ...] = ()
    project: Annotated[str, Meta(max_length=64)] = ""


class OneUploadedJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job on uploaded files, by its id."""

    id: _JobId


class SeriesAsked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run asked for on the series ``uid`` of the upload of a job, on that job's terms.

    The ``uid`` of a volume file is its name without the ending.
    """

    id: _JobId
    uid: Annotated[str, Meta(min_length=1, max_length=4096)]


class UploadedJob(Job, frozen=True, kw_only=True):
    """The job of an upload; ``run_before`` is another one on the same series or file, null where there is none."""

    run_before: int | None


class UploadState(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of an upload: each file with its bytes that are there for good; once it is ``whole``, all has."""

    id: str
    files: int
    bytes: int
    whole: bool
    received: tuple[Received, ...]


class Discarded(msgspec.Struct, frozen=True, kw_only=True):
    """An upload that is given up."""

    id: str


def post_upload(node: RunningNode, asked: UploadAsked) -> UploadState:
    """Begin an upload, or find the one that was begun under its key."""
    return _state(node, uploads.begin_upload(node, asked.key, asked.files, asked.bytes, asked.project))


def get_upload(node: RunningNode, asked: OneUpload) -> UploadState:
    """What has come of an upload."""
    return _state(node, uploads.own_upload(node, asked.id))


def post_finish(node: RunningNode, asked: FinishAsked) -> UploadedJob:
    """Make a job of an upload, and say whether the same was run before."""
    upload = uploads.own_upload(node, asked.id)
    terms = Terms(
        pipeline=asked.pipeline,
        priority=asked.priority,
        destinations=asked.destinations,
        project=asked.project or (upload.project if upload.is_project_named else _usual_project(node)),
    )
    job = uploads.finish_upload(node, upload, terms)
    return UploadedJob(**msgspec.structs.asdict(job), run_before=run_before(node, job))


def _usual_project(node: RunningNode) -> str:
    """The only project in which whoever asks may run something; else that of what nobody says anything of."""
    only = node.projects if node.projects is not None and len(node.projects) == 1 else {DEFAULT_PROJECT}
    return next(iter(only))


def post_discard(node: RunningNode, asked: OneUpload) -> Discarded:
    """Give an upload up."""
    uploads.discard_upload(node, uploads.own_upload(node, asked.id))
    return Discarded(id=asked.id)


def get_upload_series(node: RunningNode, asked: OneUploadedJob) -> SeriesOfUpload:
    """The series of the upload of a job."""
    return series_of_job(node, asked.id)


def post_upload_series(node: RunningNode, asked: SeriesAsked) -> Job:
    """Run another series of an upload."""
    return run_series(node, asked.id, asked.uid)


def _state(node: RunningNode, upload: Upload) -> UploadState:
    return UploadState(
        id=upload.id,
        files=upload.files,
        bytes=upload.bytes,
        whole=node.uploads.is_whole(upload),
        received=tuple(node.uploads.received(upload)),
    )


UPLOAD_OPERATIONS: tuple[Operation[Any], ...] = (
    Operation(
        method="POST",
        path="/uploads",
        asked=UploadAsked,
        answer=UploadState,
        run=post_upload,
        tag="Uploads",
        summary="Begin an upload, or find the one that was begun under its key",
        refusals=(404, 409, 413, 507),
    ),
    Operation(
        method="GET",
        path="/uploads/{id}",
        asked=OneUpload,
        answer=UploadState,
        run=get_upload,
        tag="Uploads",
        summary="What has come of an upload",
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/uploads/{id}/finish",
        asked=FinishAsked,
        answer=UploadedJob,
        run=post_finish,
        tag="Uploads",
        summary="Run a pipeline on an upload that has come whole",
        refusals=(404, 409, 413, 422, 507),
        is_long=True,
    ),
    Operation(
        method="POST",
        path="/uploads/{id}/discard",
        asked=OneUpload,
        answer=Discarded,
        run=post_discard,
        tag="Uploads",
        summary="Give up an upload that no job was made of",
        refusals=(404, 507),
        is_long=True,
    ),
    Operation(
        method="GET",
        path="/jobs/{id}/series",
        asked=OneUploadedJob,
        answer=SeriesOfUpload,
        run=get_upload_series,
        tag="Uploads",
        summary="Every series of the upload of a job, with why it is run or not",
        refusals=(404, 409, 422),
        is_long=True,
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/series",
        asked=SeriesAsked,
        answer=Job,
        run=post_upload_series,
        tag="Uploads",
        summary="Run another series of the upload of a job",
        refusals=(404, 409, 422),
        is_long=True,
    ),
)
"""In the order in which they are shown."""
