"""One's own account: what one may do here, and a new password."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from carina.database import read_only
from carina.service.access.accounts import change_password, password_of
from carina.service.access.caller import caller_of, check_form
from carina.service.access.credentials import LONGEST, SHORTEST, hash_password, is_password
from carina.service.access.routes import Doors
from carina.service.access.sessions import end_other_sessions
from carina.service.changes import audit
from carina.service.node import seen_node
from carina.service.pages.forms import form_of
from carina.service.pages.rendering import page
from carina.service.problems import Conflict, NotThere, NotUnderstood, Refused, status_of
from carina.service.rest.operation import understood


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form: the current password, and the new one, twice."""

    token: str
    current: str = ""
    password: str = ""
    again: str = ""


def account_routes() -> list[BaseRoute]:
    """The page and its form."""
    return [Route("/account", show_account), Route("/account", set_own_password, methods=["POST"])]


def show_account(request: Request) -> Response:
    """The page."""
    return _account_page(request, {})


def _account_page(request: Request, told: Mapping[str, str], status: int = 200) -> Response:
    _, kept = _own(request)
    values = {"said": "", "done": "", "shortest": SHORTEST, "longest": LONGEST, "has_password": bool(kept)}
    return page(request, "account.html", values | dict(told), status)


def _own(request: Request) -> tuple[int, str]:
    """The account of who is logged in, and its password as it is kept."""
    caller = caller_of(request)
    if not caller.session:
        raise NotThere("access.account", "nobody is logged in on this page, so there is no account to show.")
    with read_only(seen_node(request).engine) as connection:
        return password_of(connection, caller.name)


async def set_own_password(request: Request) -> Response:
    """Set the password of who is logged in, and log them out everywhere else."""
    given = await form_of(request)
    return await to_thread.run_sync(_set, request, given, limiter=request.app.state.hashing)


def _set(request: Request, given: Mapping[str, str]) -> Response:
    try:
        number = _changed(request, understood(given, PasswordChange))
    except (NotUnderstood, Refused, Conflict) as error:
        return _account_page(request, {"said": error.message}, status_of(error))
    where = "one other place" if number == 1 else f"{number} other places"
    return _account_page(request, {"done": f"The password is changed; you were logged out in {where}."})


def _changed(request: Request, asked: PasswordChange) -> int:
    """From how many places somebody was logged out.

    Raises:
        CarinaError: the current password is wrong, or the new one can't be taken.
    """
    caller, (account_id, kept) = caller_of(request), _own(request)
    check_form(request, asked.token)
    _check_current(request, asked.current, kept)
    if asked.password != asked.again:
        raise NotUnderstood("access.password", "the two new passwords are not the same.")
    password_hash = hash_password(asked.password)
    with seen_node(request).engine.begin() as connection:
        change_password(connection, account_id, kept, password_hash)
        audit(connection, "changed", f"account {account_id}: password changed by its owner")
        return end_other_sessions(connection, account_id, caller.session)


def _check_current(request: Request, current: str, kept: str) -> None:
    """See that somebody knows their current password; who tries many waits as at the log-in.

    Raises:
        Refused: they don't, or have to wait.
    """
    doors: Doors = request.app.state.doors
    name, address = caller_of(request).name, request.client.host if request.client else ""
    if wait_s := doors.wait_s(name, address):
        raise Refused("access.wait", f"too many tries that failed; the next one is possible in {wait_s} seconds.")
    if not is_password(current, kept):
        doors.failed(name, address)
        raise Refused("access.password", "the current password is not right: try again, or ask for a new link.")
    doors.names.succeeded(name)
