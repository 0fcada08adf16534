"""Uploads of a node: who sends what, and the job that it becomes."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, exists, func, select

from carina.database import EVERY_PROJECT, JOB, PROJECT, REMOVAL, database_now, read_only
from carina.jobs.listing import Job, find_job, jobs_on_source
from carina.jobs.queue import JobEnd, JobState
from carina.jobs.terms import Terms
from carina.keeping.lock import files_held
from carina.keeping.readers_work import ReadersWork
from carina.keeping.removable import KeptKind
from carina.keeping.retention import bounds_at
from carina.receive.upload_errors import NoRoomForUpload, UploadRefused
from carina.receive.uploads import Upload, new_upload_id
from carina.service import changes
from carina.service.access.caller import asking
from carina.service.access.members import see_project
from carina.service.node import RunningNode
from carina.service.pipelines import check_offered
from carina.service.problems import NotThere
from carina.web_settings import DEFAULT_PROJECT


def begin_upload(node: RunningNode, key: str, files: int, size: int, project: str = "") -> Upload:
    """A new upload of whoever asks, or the one that they began under the same key; it counts in a project's share.

    Raises:
        NoRoomForUpload: there is no room for it, or the node takes none.
        UploadRefused: other numbers, or another project, were announced under that key.
        NotThere: there is no such project.
    """
    if not node.settings.uploads.gb:
        raise NoRoomForUpload("upload.off", "this node takes no uploads (uploads.gb is 0).")
    with read_only(node.engine) as connection:
        of_node = select(func.count()).select_from(PROJECT).execution_options(**EVERY_PROJECT)
        projects = connection.execute(of_node).scalar_one()
        if project:
            see_project(connection, project)
    wanted = Upload(
        id=new_upload_id(),
        owner=asking.get(),
        key=key,
        files=files,
        bytes=size,
        begun_at=node.now(),
        project=project or _counted_in(node),
        is_project_named=bool(project),
    )
    found = node.uploads.begin(wanted, projects)
    if found is wanted:
        with node.engine.begin() as connection:
            counted = f"{files} file{'' if files == 1 else 's'}"
            changes.audit(connection, "received", f"upload {found.id}: begun, {counted}, {size} bytes")
    return found


def _counted_in(node: RunningNode) -> str:
    """The project whose share an upload takes that nobody has named one for."""
    sees_usual = node.projects is None or DEFAULT_PROJECT in node.projects
    return DEFAULT_PROJECT if sees_usual else min(node.projects or {DEFAULT_PROJECT})


def own_upload(node: RunningNode, upload_id: str) -> Upload:
    """An upload of whoever asks.

    Raises:
        NoUpload: there is none.
    """
    return node.uploads.find(upload_id, asking.get())


def finish_upload(node: RunningNode, upload: Upload, terms: Terms) -> Job:
    """Make a job of an upload that has come whole, or give the one that was made of it.

    Raises:
        UploadRefused: it is not whole, or it was announced for, or is run in, another project.
        BadSeries: an archive can't be unpacked, or nothing is in it.
        NoRoomForUpload, UploadNotStored: the disk does not take what is unpacked.
        NotThere, BadConfig: as of any job.
    """
    if upload.is_project_named and terms.project != upload.project:
        words = f"the upload was announced for project {upload.project}, not {terms.project}"
        raise UploadRefused("upload.project", f"{words}: finish it there, or give it up and announce it anew.")
    if upload.job is None:
        check_offered(node.settings, terms.pipeline)  # before archives are unpacked
    job_id = node.uploads.finish(upload, lambda content: changes.submit_source(node, content.absolute(), terms).id)
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
    if job is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    if job.project != terms.project:
        words = f"the upload is run as job {job.id} in project {job.project}, not {terms.project}"
        raise UploadRefused("upload.project", f"{words}: send the files again for another project.")
    return job


def discard_upload(node: RunningNode, upload: Upload) -> None:
    """Give an upload up of which no job was made; of others, the job keeps the files."""
    if node.uploads.discard(upload):
        with node.engine.begin() as connection:
            changes.audit(connection, "changed", f"upload {upload.id}: given up")


def sweep_uploads(node: RunningNode) -> None:
    """Remove uploads that were given up, and those whose run is removed or, being healthy, old enough.

    Raises:
        FolderAway: the node's folder is not there, or not any more.
    """
    uploads = node.uploads
    with files_held(node.folder, wait=False) as is_held:
        if not is_held:
            return
        gone = uploads.sweep(node.now(), partial(_is_over, node))
    with node.own.begin() as connection:
        for upload_id in gone:
            changes.audit(connection, "removed", f"upload {upload_id}", who="retention")


def _is_over(node: RunningNode, job_id: int) -> bool:
    """Whether neither a job, nor a reader of its run, needs its files any more, nor another one on the same files."""
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
        if job is None or not _is_job_over(node, connection, job_id):
            return False
        return all(_is_job_over(node, connection, one.id) for one in jobs_on_source(connection, job.source))


def _is_job_over(node: RunningNode, connection: Connection, job_id: int) -> bool:
    now = database_now(connection)
    removed = exists().where(REMOVAL.c.kind == KeptKind.RUN, REMOVAL.c.subject_id == JOB.c.id)
    wanted = select(JOB.c.state, JOB.c.ended, JOB.c.stopped_at, removed.label("removed"))
    job = connection.execute(wanted.where(JOB.c.id == job_id)).one()
    if job.removed:
        return True
    days = node.settings.retention.incoming_days
    is_healthy = (job.state, job.ended) == (JobState.STOPPED, JobEnd.HEALTHY)
    if not days or not is_healthy or now - job.stopped_at <= timedelta(days):
        return False
    readers = ReadersWork(folder=node.folder, destinations=node.every_destination)
    return not readers.holds(connection, job_id, bounds_at(now, node.settings.retention, days))
