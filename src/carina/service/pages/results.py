"""The viewer over the runs of the node's jobs, loaded when somebody first looks at one."""

from __future__ import annotations

from functools import cache

from starlette.concurrency import run_in_threadpool
from starlette.routing import Router
from starlette.types import Receive, Scope, Send


async def results(scope: Scope, receive: Receive, send: Send) -> None:
    """An application for everything below a job's results; the server starts without what draws pictures."""
    viewer = await run_in_threadpool(_viewer)
    await viewer(scope, receive, send)


@cache
def _viewer() -> Router:
    from carina.service.pages.runs_of_jobs import (
        corrections_of_jobs,
        earlier_runs,
        events_of_job,
        following_job,
        page_of_job,
        removed_runs,
        run_of,
        sent_of_job,
        superseded_job,
    )
    from carina.service.viewer.changes_page import changes_routes
    from carina.service.viewer.correcting import correct_routes
    from carina.service.viewer.opened import RunShelf
    from carina.service.viewer.routes import Around, viewer_routes

    shelf = RunShelf()
    around = Around(
        above=page_of_job,
        is_compared=True,
        earlier=earlier_runs,
        is_correctable=True,
        called="job ",
        sent=sent_of_job,
        following=following_job,
        superseded=superseded_job,
        live=events_of_job,
    )
    correct = correct_routes(run_of, shelf, around, corrections_of_jobs())
    changes = changes_routes(run_of, earlier_runs, shelf, around, removed_runs)
    return Router(routes=[*correct, *changes, *viewer_routes(run_of, shelf, around)])


async def agreements(scope: Scope, receive: Receive, send: Send) -> None:
    """An application: the page of what readers decided about the results of all jobs."""
    page = await run_in_threadpool(_agreements)
    await page(scope, receive, send)


@cache
def _agreements() -> Router:
    from carina.service.pages.runs_of_jobs import looked_at
    from carina.service.viewer.agreement_page import agreement_routes

    return Router(routes=agreement_routes(looked_at, (), called="job "))
