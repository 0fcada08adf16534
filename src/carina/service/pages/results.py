"""The viewer over the runs of the node's jobs, loaded when somebody first looks at one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from carina.database import read_only
from carina.jobs.listing import find_job
from carina.service.changes import audit
from carina.service.node import RunningNode
from carina.service.problems import NotThere


async def results(scope: Scope, receive: Receive, send: Send) -> None:
    """An application for everything below a job's results; the server starts without what draws pictures."""
    viewer = await run_in_threadpool(_viewer)
    await viewer(scope, receive, send)


@cache
def _viewer() -> Router:
    from carina.service.viewer.routes import Above, Around, viewer_routes

    return Router(routes=viewer_routes(run_of, around=Around(above=Above(href="/", name="Worklist"))))


def run_of(request: Request) -> Path:
    """The folder of the run that a request is about; who opens its page is in the audit trail.

    Raises:
        NotThere: there is no such job.
    """
    node: RunningNode = request.app.state.node
    job_id = int(request.path_params["job"])
    with read_only(node.engine) as connection:
        job = find_job(connection, job_id)
    if job is None:
        raise NotThere("job.unknown", f"there is no job {job_id}.")
    if request.url.path.endswith("/view/"):
        with node.engine.begin() as connection:
            audit(connection, "looked", f"results of job {job_id}")
    return node.folder / job.folder
