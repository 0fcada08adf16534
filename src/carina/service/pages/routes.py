"""The pages as routes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from carina.database import read_only
from carina.deliver.ledger import DeliveryState
from carina.deliver.register import list_deliveries, resting_reason
from carina.jobs.earlier import earlier_removed, earlier_scans, wanted_for, wish_of
from carina.jobs.kept import FilesState
from carina.jobs.listing import Job
from carina.jobs.queue import JobState
from carina.jobs.reading import Reading, next_to_read
from carina.jobs.superseding import successor_of, successor_words
from carina.pipeline.manifest import Manifest, State
from carina.service.access.accounts import administrators
from carina.service.access.caller import Caller, caller_of
from carina.service.arrivals import arrival_read
from carina.service.node import RunningNode, seen_node
from carina.service.pages.acting import act
from carina.service.pages.deliveries import sent_lines
from carina.service.pages.inputs import job_words
from carina.service.pages.job_log import plain_log, show_log
from carina.service.pages.job_rows import came_by
from carina.service.pages.live import stream
from carina.service.pages.projects import project_routes
from carina.service.pages.rendering import compile_templates, html, in_turn, page, shared_values, shown_part
from carina.service.pages.results import agreements, results
from carina.service.pages.shared_parts import PagePart, nameless, rights_of
from carina.service.pages.under_uid import show_held
from carina.service.pages.worklist import WorklistAsked, searched_values, upload_values, worklist_part
from carina.service.peer_names import message_told, told_to
from carina.service.progress import manifest_of, operators_of, progress_of, warnings_of
from carina.service.rest.operation import understood
from carina.service.rest.shown import arrival_shown
from carina.service.upload_again import run_before
from carina.service.upload_series import is_of_upload, series_of_job


def page_routes() -> list[BaseRoute]:
    """Every route of the pages."""
    compile_templates()
    return [
        Route("/", show_worklist),
        Route("/live", live_worklist),
        Route("/jobs/{job:int}", show_job),
        Route("/jobs/{job:int}/live", live_job),
        Route("/jobs/{job:int}/superseded", live_superseded),
        Route("/jobs/{job:int}/log", show_log),
        Route("/jobs/{job:int}/log.txt", plain_log),
        Route("/jobs/{job:int}/series", show_series),
        Route("/jobs/{job:int}/next", show_next),
        Route("/series/{series}", show_held),
        Route("/studies/{study}", show_held),
        Mount("/jobs/{job:int}/view", results),
        Mount("/agreement", agreements),
        *project_routes(),
        Route("/act", act, methods=["POST"]),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


async def show_worklist(request: Request) -> Response:
    """The worklist."""
    return await in_turn(request, _worklist_page)


def _worklist_page(request: Request) -> Response:
    asked = _asked(request)
    if asked.project:
        return RedirectResponse(asked.link(), status_code=303)
    node, caller = _node(request), caller_of(request)
    values = searched_values(request, node, asked, f"/live?{request.url.query}")
    values |= upload_values(node, caller, values["projects"])
    values["admins"] = []
    if caller.is_in_nothing:
        with read_only(node.engine) as connection:
            values["admins"] = administrators(connection)
    return page(request, "worklist.html", values, 400 if values["troubles"] else 200)


def live_worklist(request: Request) -> Response:
    """The worklist's part that changes, as it changes."""
    node, asked = _node(request), _asked(request)
    asked.jobs()  # what is wrong with it is said at once
    return stream(node, request, partial(worklist_part, request, node, asked))


def show_job(request: Request) -> Response:
    """One job: operators, error, deliveries, log."""
    node = _node(request)
    values = shown_part(request, _job_part(request, node, request.path_params["job"]))
    return page(request, "job.html", values | {"live": f"{request.url.path}/live"})


def live_job(request: Request) -> Response:
    """A job's part that changes."""
    node, job_id = _node(request), request.path_params["job"]
    progress_of(node, job_id)
    return stream(node, request, partial(_job_part, request, node, job_id))


def live_superseded(request: Request) -> Response:
    """Whether another job came in place of this one, as the pages of its results say it."""
    node, job_id = _node(request), request.path_params["job"]
    progress_of(node, job_id)
    return stream(node, request, partial(_superseded_part, request, node, job_id))


def _superseded_part(request: Request, node: RunningNode, job_id: int, at_most_old_s: float = 0.0) -> PagePart:
    def make(_: object) -> PagePart:
        job = progress_of(node, job_id).job
        with read_only(node.engine) as connection:
            found = successor_of(connection, job)
        values = (
            {"href": f"/jobs/{found.id}", "name": f"Job {found.id}", "words": successor_words(found)} if found else {}
        )
        return PagePart(html=html("superseded.html", {"href": "", "tab": ""} | values))

    part: PagePart = request.app.state.parts.part(("superseded", node.projects, job_id), make, at_most_old_s)
    return part


def _job_part(request: Request, node: RunningNode, job_id: int, at_most_old_s: float = 0.0) -> PagePart:
    """The part of a job's page that changes."""
    caller = caller_of(request)

    def make(_: object) -> PagePart:
        anybody = nameless(caller)
        values = job_values(node, job_id, anybody)
        text = html("operators.html", values | shared_values(anybody, f"/jobs/{job_id}"))
        job, progress = values["job"], values["progress"]
        is_over = job.state is JobState.STOPPED and all(one.state is not State.RUNNING for one in progress.operators)
        if is_over:
            return PagePart(html=text, values={"job": job})
        look = partial(_run_of, node, job)
        return PagePart(html=text, values={"job": job}, seen=(progress.operators, progress.warnings), look=look)

    part: PagePart = request.app.state.parts.part(
        ("job", node.projects, rights_of(caller), job_id), make, at_most_old_s
    )
    return part


def _run_of(node: RunningNode, job: Job, _: object) -> object:
    manifest = manifest_of(node, job)
    return operators_of(manifest), warnings_of(manifest)


def job_values(node: RunningNode, job_id: int, caller: Caller) -> dict[str, Any]:
    """The values of a job's page, as a caller sees it.

    Raises:
        NotThere: there is no such job.
    """
    settings = node.every_setting
    progress = progress_of(node, job_id)
    project = progress.job.project
    told = partial(message_told, caller=caller, settings=settings, project=project)
    with read_only(node.engine) as connection:
        rows = list_deliveries(connection, job_id=job_id, at_most=1000)
        deliveries = told_to(rows, caller, settings, project)
        earlier, wish = earlier_scans(connection, job_id), wish_of(connection, job_id)
        removed = earlier_removed(connection, job_id)
        sent = sent_lines(connection, progress.job, caller, settings)
        wanted, described = wanted_for(connection, job_id), job_words(node, connection, progress.job)
        held_up = {one.destination for one in deliveries if one.state == DeliveryState.WAITING}
        successor = successor_of(connection, progress.job)
        resting = {name: told(resting_reason(connection, name)) for name in sorted(held_up)}
        arrival = arrival_read(connection, node.folder, progress.job)
    has_results = progress.job.state is JobState.STOPPED and progress.files.state is FilesState.HERE
    shown = told_to(progress, caller, settings)  # what is looked up needs the job as it is
    values = {"progress": shown, "job": shown.job, "described": described, "deliveries": deliveries}
    values |= {"resting": resting, "sent": sent}
    manifest = manifest_of(node, progress.job)
    values |= {"successor": successor, "successor_words": successor_words(successor) if successor else ""}
    values["handed_over"] = _handed_over(manifest)
    values["computed_s"] = manifest.seconds if manifest else 0.0
    is_uploaded = is_of_upload(progress.job)
    seen = arrival_shown(arrival, caller) if arrival else None
    came = came_by(seen, is_uploaded=seen is None and is_uploaded, used=progress.used)
    values |= {"is_uploaded": is_uploaded, "came_by": came}
    values |= {"has_results": has_results, "earlier": earlier, "earlier_removed": removed}
    values["wish_said"] = told(wish_words(wish))
    return values | {"wanted_for": wanted, "before": run_before(node, progress.job)}


def wish_words(wish: Row[Any] | None) -> str:
    """What came of the wish for earlier scans; empty where nothing was wished."""
    return (wish.said or f"Asking {wish.peer} for them.") if wish else ""


def _handed_over(manifest: Manifest | None) -> frozenset[str]:
    """The operators of a job's run that have left their objects to the delivery of the node, which may yet wait."""
    found = manifest.operators.items() if manifest else ()
    return frozenset(name for name, one in found if one.has_handed_over)


async def show_series(request: Request) -> Response:
    """The series of the upload of a job, and how to run another one."""
    return await in_turn(request, _series_page)


def _series_page(request: Request) -> Response:
    node, job_id = _node(request), request.path_params["job"]
    found = series_of_job(node, job_id)
    job = told_to(progress_of(node, job_id).job, caller_of(request), node.every_setting)
    return page(request, "series.html", {"job": job, "series": found.series})


def show_next(request: Request) -> Response:
    """To the next job of the same project whose result waits for a reader, else to the list of those, which is empty.

    ``page=correct`` leads to the page on which its masks are decided.
    """
    node = _node(request)
    job = progress_of(node, request.path_params["job"]).job
    with read_only(node.engine) as connection:
        found = next_to_read(connection, job.id, job.project)
    if found is None:
        return RedirectResponse(WorklistAsked(project=job.project, reading=Reading.UNREAD).link(), 303)
    page_of = "correct/lesion" if request.query_params.get("page") == "correct" else ""
    return RedirectResponse(f"/jobs/{found}/view/{page_of}", 303)


def _asked(request: Request) -> WorklistAsked:
    return understood(dict(request.query_params), WorklistAsked)


def _node(request: Request) -> RunningNode:
    node = seen_node(request)
    return node
