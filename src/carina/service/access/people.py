"""The page of accounts and tokens, for administrators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.database import read_only
from carina.errors import CarinaError
from carina.jobs.projects import project_names
from carina.service.access import accounts, sessions
from carina.service.access.caller import check_form
from carina.service.access.roles import PEOPLE, PROGRAMS, role_among
from carina.service.changes import audit
from carina.service.node import RunningNode, seen_node
from carina.service.pages.forms import form_of
from carina.service.pages.rendering import page
from carina.service.problems import Conflict, NotUnderstood, status_of
from carina.service.rest.operation import understood


class PersonAct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A button of the page: ``what`` it does, to which row, with which name and role."""

    what: str
    token: str
    id: Annotated[int, Meta(ge=1, le=2**62)] = 0
    name: str = ""
    choice: str = ""
    project: str = ""
    back: str = ""


class PersonOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a button: a secret that is shown once, as what; empty where there is none."""

    subject: str
    shown: str = ""
    of: str = ""


PersonChange = Callable[[Connection, RunningNode, PersonAct], PersonOutcome]


def _add(connection: Connection, node: RunningNode, asked: PersonAct) -> PersonOutcome:
    name, role = accounts.account_name(asked.name), role_among(asked.choice, PEOPLE)
    account_id = accounts.new_account(connection, name, role, node.now())
    link = accounts.new_link(connection, account_id, node.now())
    return PersonOutcome(subject=f"account {account_id} ({name}): made, {role}", shown=link, of=f"Link of {name}")


def _link(connection: Connection, node: RunningNode, asked: PersonAct) -> PersonOutcome:
    account = accounts.find_account(connection, asked.id)
    link = accounts.new_link(connection, account.id, node.now())
    return PersonOutcome(subject=f"account {account.id}: new link", shown=link, of=f"Link of {account.name}")


def _role(connection: Connection, _: RunningNode, asked: PersonAct) -> PersonOutcome:
    role = role_among(asked.choice, PEOPLE)
    return PersonOutcome(subject=f"account {accounts.set_role(connection, asked.id, role).id}: {role}")


def _close(connection: Connection, _: RunningNode, asked: PersonAct) -> PersonOutcome:
    return PersonOutcome(subject=f"account {accounts.set_closed(connection, asked.id, is_closed=True).id}: closed")


def _open(connection: Connection, _: RunningNode, asked: PersonAct) -> PersonOutcome:
    return PersonOutcome(subject=f"account {accounts.set_closed(connection, asked.id, is_closed=False).id}: opened")


def _token(connection: Connection, node: RunningNode, asked: PersonAct) -> PersonOutcome:
    name = accounts.account_name(asked.name)
    secret = sessions.new_token(connection, name, asked.choice, node.now(), asked.project)
    said = f"token {name}: made, {asked.choice} in {asked.project or 'every project'}"
    return PersonOutcome(subject=said, shown=secret, of=f"Token of {name}")


def _revoke(connection: Connection, _: RunningNode, asked: PersonAct) -> PersonOutcome:
    return PersonOutcome(subject=f"token {sessions.revoke_token(connection, asked.id)}: revoked")


PEOPLE_ACTS: Mapping[str, PersonChange] = {
    "add": _add,
    "link": _link,
    "role": _role,
    "close": _close,
    "open": _open,
    "token": _token,
    "revoke": _revoke,
}
"""What each button does."""


def show_people(request: Request) -> Response:
    """The page."""
    return _people(request, PersonOutcome(subject=""))


def _people(request: Request, told: PersonOutcome) -> Response:
    node = seen_node(request)
    with read_only(node.engine) as connection:
        values = {"accounts": accounts.list_accounts(connection), "tokens": sessions.list_tokens(connection)}
        projects = project_names(connection)
    shown = told.shown
    if told.of.startswith("Link"):
        shown = f"{request.base_url}invited?link={told.shown}"
    shared = {"people": PEOPLE, "programs": PROGRAMS, "shown": shown, "of": told.of, "login": node.settings.web.login}
    shared["projects"] = projects
    return page(request, "users.html", {**values, **shared, "path": "/users", "back": "/users"})


async def act_on_people(request: Request) -> Response:
    """Do what a button says; a new link or token is shown at once, and never again."""
    given = await form_of(request)
    try:
        told = await run_in_threadpool(_act, request, given)
    except CarinaError as error:
        values = {"said": error.message, "code": error.code, "to": "/users"}
        return page(request, "said.html", values, status_of(error))
    if told.shown:
        return await run_in_threadpool(_people, request, told)
    return RedirectResponse("/users", status_code=303)


def _act(request: Request, given: Mapping[str, str]) -> PersonOutcome:
    node = seen_node(request)
    asked = understood(given, PersonAct)
    check_form(request, asked.token)
    if not node.settings.web.login:
        raise Conflict("access.off", "log-in is off: no account or token is asked for; set login = true in [web].")
    if asked.what not in PEOPLE_ACTS:
        raise NotUnderstood("web.asked", f"what: is {asked.what[:20]!r}; expected {', '.join(PEOPLE_ACTS)}.")
    with node.engine.begin() as connection:
        told = PEOPLE_ACTS[asked.what](connection, node, asked)
        audit(connection, "changed", told.subject)
    return told
