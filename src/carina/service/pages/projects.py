"""The pages of projects: which there are, and of each its table, how far it is, and its people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from carina.database import read_only
from carina.errors import CarinaError
from carina.jobs.projects import project_names
from carina.service.access import members
from carina.service.access.accounts import administrators
from carina.service.access.caller import Caller, caller_of, check_form
from carina.service.access.roles import IN_PROJECT, Need, role_among
from carina.service.changes import audit, move_to_project
from carina.service.node import RunningNode, seen_node
from carina.service.pages.forms import form_of, form_pairs, own_place
from carina.service.pages.live import stream
from carina.service.pages.rendering import in_turn, page
from carina.service.pages.worklist import WorklistAsked, searched_values, worklist_part
from carina.service.problems import NotUnderstood, status_of
from carina.service.rest.job_pages import ShownState
from carina.service.rest.operation import understood

_Id = Annotated[int, Meta(ge=1, le=2**62)]
_ENDED = (ShownState.HEALTHY, ShownState.FAULTED, ShownState.CANCELED)


class ProjectMade(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form by which a project is made."""

    token: str
    name: str = ""


class PeopleChanged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A button beside a person of a project: ``set`` their role to a choice, or ``remove`` them."""

    token: str
    what: str
    name: str = ""
    choice: str = ""


class Moved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be moved to which project: jobs with their series, arrivals with theirs."""

    token: str
    to: str = ""
    back: str = "/"
    job: tuple[_Id, ...] = ()
    arrival: tuple[_Id, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProjectRow:
    """A project as a row: its jobs by state, and what whoever looks is in it."""

    name: str
    jobs: Mapping[str, int]
    role: str
    states: tuple[ShownState, ...] = tuple(ShownState)

    @property
    def total(self) -> int:
        """Jobs in any state."""
        return sum(self.jobs.values())

    @property
    def ended(self) -> int:
        """Jobs that have ended, however."""
        return sum(self.jobs[state] for state in _ENDED)


def project_routes() -> list[BaseRoute]:
    """Every route of projects."""
    return [
        Route("/projects", show_projects),
        Route("/projects", make_project, methods=["POST"]),
        Route("/projects/{project}", show_project),
        Route("/projects/{project}/live", live_project),
        Route("/projects/{project}/people", change_people, methods=["POST"]),
        Route("/move", move, methods=["POST"]),
    ]


def _row(node: RunningNode, caller: Caller, name: str) -> ProjectRow:
    role = caller.roles.get(name) if caller.projects(Need.READ) is not None else caller.role
    return ProjectRow(name=name, jobs=node.seen_in(frozenset({name})).tallies.now().jobs, role=str(role))


def show_projects(request: Request) -> Response:
    """Every project that whoever looks is in."""
    node, caller = seen_node(request), caller_of(request)
    with read_only(node.engine) as connection:
        names, admins = project_names(connection), administrators(connection)
    return page(request, "projects.html", {"rows": [_row(node, caller, name) for name in names], "admins": admins})


def _project(request: Request) -> tuple[RunningNode, WorklistAsked]:
    """The node as it is with one project alone, and what of its table is asked for.

    Raises:
        NotThere: there is no such project.
    """
    name = str(request.path_params["project"])
    return seen_node(request).only(name), understood({**request.query_params, "project": name}, WorklistAsked)


async def show_project(request: Request) -> Response:
    """A project: how far it is, its table, its people."""
    return await in_turn(request, _project_page)


def _project_page(request: Request) -> Response:
    node, asked = _project(request)
    caller, query = caller_of(request), request.url.query
    with read_only(node.engine) as connection:
        people = members.members_of(connection, asked.project)
    live = f"{request.url.path}/live" + (f"?{query}" if query else "")
    shown = searched_values(request, node, asked, live)
    shared = {"row": _row(node, caller, asked.project), "people": people, "roles": IN_PROJECT}
    is_admin = caller.may_in(Need.ADMINISTER, asked.project)
    has_people = node.settings.web.login
    values = shown | shared | {"is_admin": is_admin, "login": has_people}
    return page(request, "project.html", values, 400 if values["troubles"] else 200)


def live_project(request: Request) -> Response:
    """The part of it that changes."""
    node, asked = _project(request)
    asked.jobs()
    return stream(node, request, partial(worklist_part, request, node, asked))


async def _done(request: Request, act: Callable[[], str], to: str) -> Response:
    """Do what a form says, then show where it leads to, or why it was not done."""
    try:
        to = await run_in_threadpool(act)
    except CarinaError as error:
        return page(request, "said.html", {"said": error.message, "code": error.code, "to": to}, status_of(error))
    return RedirectResponse(to, status_code=303)


async def make_project(request: Request) -> Response:
    """Make a project, and show it."""
    given = await form_of(request)
    return await _done(request, lambda: _make(request, given), "/projects")


def _make(request: Request, given: Mapping[str, str]) -> str:
    asked, node = understood(given, ProjectMade), seen_node(request)
    check_form(request, asked.token)
    name = asked.name.strip()
    with node.engine.begin() as connection:
        members.new_project(connection, name, node.now())
        audit(connection, "changed", f"project {name}: made")
    return f"/projects/{name}"


async def change_people(request: Request) -> Response:
    """Change what a person may do in a project."""
    given = await form_of(request)
    return await _done(request, lambda: _change(request, given), "/projects")


def _change(request: Request, given: Mapping[str, str]) -> str:
    asked, (node, of) = understood(given, PeopleChanged), _project(request)
    check_form(request, asked.token)
    with node.engine.begin() as connection:
        if asked.what == "set":
            role = role_among(asked.choice, IN_PROJECT)
            members.set_member(connection, of.project, asked.name, role)
            audit(connection, "changed", f"project {of.project}: {asked.name} is {role}")
        elif asked.what == "remove":
            members.remove_member(connection, of.project, asked.name)
            audit(connection, "changed", f"project {of.project}: {asked.name} is in it no longer")
        else:
            raise NotUnderstood("web.asked", f"what: is {asked.what[:20]!r}; expected set, remove.")
    return of.link()


async def move(request: Request) -> Response:
    """Move what was chosen to another project."""
    pairs = await form_pairs(request)
    given: dict[str, Any] = dict(pairs)
    for kind in ("job", "arrival"):
        given[kind] = [value for name, value in pairs if name == kind]
    return await _done(request, lambda: _move(request, given), own_place(given.get("back", "/")))


def _move(request: Request, given: Mapping[str, Any]) -> str:
    asked = understood(given, Moved)
    check_form(request, asked.token)
    if not asked.job and not asked.arrival:
        raise NotUnderstood("web.asked", "nothing was chosen: tick the rows that are to be moved.")
    move_to_project(seen_node(request), asked.job, asked.arrival, asked.to)
    return own_place(asked.back)
