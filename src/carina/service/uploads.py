"""Uploads of a node: who sends what, and the job that it becomes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import exists, select

from carina.database import JOB, REMOVAL, database_now, read_only
from carina.jobs.listing import Job, find_job
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.terms import Terms
from carina.keeping.lock import files_held
from carina.keeping.removable import KeptKind
from carina.receive.uploads import NoRoomForUpload, Upload, new_upload_id
from carina.service import changes
from carina.service.access.caller import asking
from carina.service.node import RunningNode


def begin_upload(node: RunningNode, key: str, files: int, size: int) -> Upload:
    """A new upload of whoever asks, or the one that they began under the same key.

    Raises:
        NoRoomForUpload: there is no room for it, or the node takes none.
    """
    if not node.settings.uploads.gb:
        raise NoRoomForUpload("upload.off", "this node takes no uploads (uploads.gb is 0).")
    wanted = Upload(id=new_upload_id(), owner=asking.get(), key=key, files=files, bytes=size, begun_at=node.now())
    found = node.uploads.begin(wanted)
    if found is wanted:
        with node.engine.begin() as connection:
            changes.audit(connection, "received", f"upload {found.id}: begun, {files} files, {size} bytes")
    return found


def own_upload(node: RunningNode, upload_id: str) -> Upload:
    """An upload of whoever asks.

    Raises:
        NoUpload: there is none.
    """
    return node.uploads.find(upload_id, asking.get())


def finish_upload(node: RunningNode, upload: Upload, terms: Terms) -> Job:
    """Make a job of an upload that has come whole, or give the one that was made of it.

    Raises:
        UploadRefused: it is not whole.
        BadSeries: an archive can't be unpacked, or nothing is in it.
        NotThere, BadConfig: as of any job.
    """

    def submit(content: Path) -> Job:
        if (made := _job_on(node, content)) is not None:
            return made
        return changes.submit_source(node, content.absolute(), terms)

    return node.uploads.finish(upload, submit)


def _job_on(node: RunningNode, content: Path) -> Job | None:
    with read_only(node.engine) as connection:
        found = connection.execute(select(JOB.c.id).where(JOB.c.source == str(content.absolute())).limit(1)).scalar()
        return None if found is None else find_job(connection, found)


def discard_upload(node: RunningNode, upload: Upload) -> None:
    """Give an upload up that is not finished; of one that is, its job keeps the files."""
    if not any(one.id == upload.id for one, _ in node.uploads.finished()):
        node.uploads.discard(upload)
        with node.engine.begin() as connection:
            changes.audit(connection, "changed", f"upload {upload.id}: given up")


def sweep_uploads(node: RunningNode) -> None:
    """Remove uploads that were given up, and those whose run is removed or, being healthy, old enough."""
    with files_held(node.folder, wait=False) as is_held:
        if not is_held:
            return
        gone = node.uploads.sweep(node.now())
        for upload, content in node.uploads.finished():
            if _is_over(node, upload, content):
                node.uploads.discard(upload)
                gone.append(upload.id)
    with node.engine.begin() as connection:
        for upload_id in gone:
            changes.audit(connection, "removed", f"upload {upload_id}", who="retention")


def _is_over(node: RunningNode, upload: Upload, content: Path) -> bool:
    settings = node.settings
    with read_only(node.engine) as connection:
        now = database_now(connection)
        removed = exists().where(REMOVAL.c.kind == KeptKind.RUN, REMOVAL.c.subject_id == JOB.c.id)
        wanted = select(JOB.c.state, JOB.c.ended, JOB.c.stopped_at, removed.label("removed"))
        jobs = connection.execute(wanted.where(JOB.c.source == str(content.absolute()))).all()
    if not jobs:  # the node was killed before its job was made, and nobody asked again
        return node.now() - upload.begun_at > timedelta(hours=settings.uploads.abandoned_h)
    days = settings.retention.incoming_days
    return all(
        job.removed
        or (
            days
            and (job.state, job.ended) == (JobState.STOPPED, JobEnd.HEALTHY)
            and now - job.stopped_at > timedelta(days)
        )
        for job in jobs
    )
