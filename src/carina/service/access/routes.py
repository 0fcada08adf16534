"""Logging in and out, and choosing a password by a link."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from carina.database import read_only
from carina.errors import CarinaError
from carina.service.access.accounts import account_name, account_of_link, password_of, set_password
from carina.service.access.caller import caller_of, check_form
from carina.service.access.credentials import LONGEST, SHORTEST, check_password, hash_password, is_password
from carina.service.access.elsewhere import come_back, go_elsewhere
from carina.service.access.entering import logged_in
from carina.service.access.identify import cookie_name
from carina.service.access.people import act_on_people, show_people
from carina.service.access.roles import Need
from carina.service.access.sessions import end_session
from carina.service.access.throttle import Throttle
from carina.service.changes import audit
from carina.service.node import RunningNode, seen_node
from carina.service.pages.forms import form_of, own_place
from carina.service.pages.rendering import page
from carina.service.problems import NotUnderstood, as_sentence, status_of
from carina.service.rest.operation import understood

WRONG = "name and password don't fit, or the account is closed."


class LogIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log-in's form."""

    token: str
    name: str = ""
    password: str = ""
    to: str = "/"


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form behind a link: a password, twice, and a name where there is none yet."""

    token: str
    link: str
    name: str = ""
    password: str = ""
    again: str = ""


class Doors:
    """The throttles of one node's log-in: a name may be mistyped a few times, an address has many people behind it."""

    def __init__(self) -> None:
        self.names, self.addresses = Throttle(free=5), Throttle(free=50)

    def wait_s(self, name: str, address: str) -> int:
        """How many seconds to wait before the next try."""
        return max(self.names.wait_s(name), self.addresses.wait_s(address))

    def failed(self, name: str, address: str) -> None:
        """A try that failed."""
        self.names.failed(name)
        self.addresses.failed(address)


def access_routes() -> list[BaseRoute]:
    """Every route of logging in and of accounts."""
    return [
        Route("/login", show_login),
        Route("/login", log_in, methods=["POST"]),
        Route("/invited", show_invitation),
        Route("/invited", accept_invitation, methods=["POST"]),
        Route("/oidc/start", go_elsewhere),
        Route("/oidc/done", come_back),
        Route("/logout", log_out, methods=["POST"]),
        Route("/users", show_people),
        Route("/users/act", act_on_people, methods=["POST"]),
    ]


def show_login(request: Request) -> Response:
    """The form; whoever is logged in goes on."""
    to = own_place(request.query_params.get("to", "/"))
    if caller_of(request).may(Need.READ):
        return RedirectResponse(to, status_code=303)
    return page(request, "login.html", _form_values(request, to))


def _form_values(request: Request, to: str) -> dict[str, str]:
    oidc = _node(request).settings.web.oidc
    return {"to": to, "said": "", "name": "", "external": urlsplit(oidc.issuer).netloc if oidc else ""}


async def log_in(request: Request) -> Response:
    """Begin a session, or say that it isn't right."""
    given = await form_of(request)
    return await to_thread.run_sync(_log_in, request, given, limiter=request.app.state.hashing)


def _log_in(request: Request, given: dict[str, str]) -> Response:
    asked = understood(given, LogIn)
    check_form(request, asked.token)
    node, doors = _node(request), _doors(request)
    address = request.client.host if request.client else ""
    name, to = asked.name.strip().lower()[:64], own_place(asked.to)
    if wait_s := doors.wait_s(name, address):
        said = f"too many tries that failed; the next one is possible in {wait_s} second{'' if wait_s == 1 else 's'}."
        answer = page(request, "login.html", _form_values(request, to) | {"said": said, "name": name}, 429)
        answer.headers["Retry-After"] = str(wait_s)
        return answer
    with read_only(node.engine) as connection:
        account_id, kept = password_of(connection, name)
    if not is_password(asked.password, kept):
        doors.failed(name, address)
        if account_id:
            with node.engine.begin() as connection:
                audit(connection, "refused", f"log-in of {name} from {address}", who=name)
        return page(request, "login.html", _form_values(request, to) | {"said": WRONG, "name": name}, 403)
    doors.names.succeeded(name)
    return logged_in(request, account_id, name, to)


def log_out(request: Request) -> Response:
    """End the session."""
    node, caller = _node(request), caller_of(request)
    if caller.session:
        with node.engine.begin() as connection:
            end_session(connection, caller.session)
            audit(connection, "logged-out", "")
    answer = RedirectResponse("/login", status_code=303)
    is_secure = request.url.scheme == "https"
    answer.delete_cookie(cookie_name(request), path="/", secure=is_secure, httponly=True, samesite="lax")
    return answer


def show_invitation(request: Request) -> Response:
    """The form behind a link."""
    link, node = request.query_params.get("link", ""), _node(request)
    with read_only(node.engine) as connection:
        account = account_of_link(connection, link, node.now())
    return _invitation(request, link, account.name, "")


def _invitation(request: Request, link: str, name: str, said: str, status: int = 200, wished: str = "") -> Response:
    values = {"link": link, "name": name, "wished": wished[:64], "said": said, "shortest": SHORTEST, "longest": LONGEST}
    return page(request, "invited.html", values, status)


async def accept_invitation(request: Request) -> Response:
    """Set the password, and log in."""
    given = await form_of(request)
    return await to_thread.run_sync(_accept, request, given, limiter=request.app.state.hashing)


def _accept(request: Request, given: dict[str, str]) -> Response:
    asked, node = understood(given, Chosen), _node(request)
    check_form(request, asked.token)
    with read_only(node.engine) as connection:
        account = account_of_link(connection, asked.link, node.now())
    try:
        name, password_hash = _chosen(asked, account.name)
        with node.engine.begin() as connection:
            account = account_of_link(connection, asked.link, node.now())  # it counts once
            set_password(connection, account, name, password_hash)
            audit(connection, "changed", f"account {account.id}: password set by link", who=name)
    except CarinaError as error:
        return _invitation(request, asked.link, account.name, error.message, status_of(error), asked.name)
    return logged_in(request, account.id, name, "/")


def _chosen(asked: Chosen, known: str) -> tuple[str, str]:
    """The name, ``known`` where there is one, and the password as it is kept.

    Raises:
        NotUnderstood: one of them can't be taken; every mistake is told at once.
    """
    mistakes: list[str] = []
    name = known
    try:
        name = known or account_name(asked.name)
    except NotUnderstood as error:
        mistakes.append(error.message)
    try:
        check_password(asked.password)
    except NotUnderstood as error:
        mistakes.append(error.message)
    if asked.password != asked.again:
        mistakes.append("the two passwords are not the same.")
    if mistakes:
        raise NotUnderstood("access.chosen", " ".join(as_sentence(one) for one in mistakes))
    return name, hash_password(asked.password)


def _node(request: Request) -> RunningNode:
    node = seen_node(request)
    return node


def _doors(request: Request) -> Doors:
    doors: Doors = request.app.state.doors
    return doors
