"""The log of a job: a page, and plain text for scripts."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from carina.jobs.places import latest_log
from carina.service.node import seen_node
from carina.service.pages.rendering import page
from carina.service.problems import NotThere
from carina.service.progress import progress_of

_LOG_BYTES = 200_000


@dataclass(frozen=True, kw_only=True)
class LogEnd:
    """The end of the log of a job's latest attempt that has one; ``is_cut`` says that more stands before it."""

    job_id: int
    name: str
    text: str
    is_cut: bool


def show_log(request: Request) -> Response:
    """The log of a job as a page."""
    return page(request, "log.html", {"log": _log_end(request)})


def plain_log(request: Request) -> Response:
    """The same as text alone."""
    return PlainTextResponse(_log_end(request).text)


def _log_end(request: Request) -> LogEnd:
    node, job_id = seen_node(request), request.path_params["job"]
    progress = progress_of(node, job_id)
    log = latest_log(node.folder, job_id, progress.job.attempt)
    if log is None:
        raise NotThere("job.no-log", f"job {job_id} has no log: {progress.files.log_said}")
    with log.open("rb") as file:
        before = max(log.stat().st_size - _LOG_BYTES, 0)
        file.seek(before)
        text = file.read().decode("utf-8", "replace")
    return LogEnd(job_id=job_id, name=log.name, text=text, is_cut=before > 0)
