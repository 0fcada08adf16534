"""The two routes of a log-in that somebody else vouches for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.errors import CarinaError, one_line
from carina.service.access.accounts import external_account, find_account
from carina.service.access.credentials import is_same
from carina.service.access.entering import logged_in
from carina.service.access.members import set_given
from carina.service.access.oidc import Provider, Vouched
from carina.service.node import seen_node
from carina.service.pages.forms import own_place
from carina.service.pages.rendering import page
from carina.service.problems import NotThere, Refused, status_of

STATE_COOKIE = "carina-oidc"
"""Binds a log-in to the browser in which it was begun."""


def go_elsewhere(request: Request) -> Response:
    """To the provider."""
    try:
        to = own_place(request.query_params.get("to", "/"))
        address, state = _provider(request).start(_redirect_uri(request), to)
    except CarinaError as error:
        return _refused(request, error)
    answer = RedirectResponse(address, status_code=303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(STATE_COOKIE, state, 600, path="/oidc", secure=is_secure, httponly=True, samesite="lax")
    return answer


def come_back(request: Request) -> Response:
    """From the provider: a session begins, with the role that the provider gives."""
    try:
        vouched = _vouched(request)
        node = seen_node(request)
        with node.engine.begin() as connection:
            account_id = external_account(connection, vouched.subject, vouched.name, vouched.role, node.now())
            decided = node.settings.web.oidc.projects if node.settings.web.oidc else ()
            set_given(connection, account_id, decided, vouched.roles)
            name = find_account(connection, account_id).name
    except CarinaError as error:
        return _refused(request, error)
    answer = logged_in(request, account_id, name, vouched.to)
    answer.delete_cookie(STATE_COOKIE, path="/oidc")
    return answer


def _vouched(request: Request) -> Vouched:
    state = request.query_params.get("state", "")
    if not state or not is_same(state, request.cookies.get(STATE_COOKIE, "")):
        raise Refused("oidc.state", "the log-in was not begun in this browser: begin it again.")
    if said := request.query_params.get("error"):
        raise Refused("oidc.denied", f"nobody was logged in there: {one_line(said)[:100]}.")
    return _provider(request).finish(_redirect_uri(request), state, str(request.url))


def _provider(request: Request) -> Provider:
    provider: Provider | None = request.app.state.provider
    if provider is None:
        raise NotThere("oidc.none", "this node has no log-in elsewhere ([web.oidc]).")
    return provider


def _redirect_uri(request: Request) -> str:
    return f"{request.base_url}oidc/done"


def _refused(request: Request, error: CarinaError) -> Response:
    values = {"said": error.message, "code": error.code, "to": "/login"}
    return page(request, "said.html", values, status_of(error))
