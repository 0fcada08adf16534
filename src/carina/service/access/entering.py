"""Beginning a session, whoever vouches for whom it is of."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.service.access.credentials import digest_of
from carina.service.access.identify import cookie_name
from carina.service.access.sessions import begin_session, end_session
from carina.service.changes import audit
from carina.service.node import seen_node


def logged_in(request: Request, account_id: int, name: str, to: str) -> Response:
    """Begin a session in place of the one that this browser has, and go to where somebody wanted to be."""
    node, before = seen_node(request), request.cookies.get(cookie_name(request))
    with node.engine.begin() as connection:
        if before:
            end_session(connection, digest_of(before))
        secret = begin_session(connection, account_id, node.settings.web, node.now())
        audit(connection, "logged-in", f"account {account_id}", who=name)
    answer = RedirectResponse(to, status_code=303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(cookie_name(request), secret, path="/", secure=is_secure, httponly=True, samesite="lax")
    return answer
