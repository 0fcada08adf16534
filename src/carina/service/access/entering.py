"""Beginning a session, whoever vouches for whom it is of."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from carina.service.access.identify import cookie_name
from carina.service.access.sessions import begin_session
from carina.service.changes import audit
from carina.service.node import seen_node


def logged_in(request: Request, account_id: int, name: str, to: str) -> Response:
    """Begin a session, and go to where somebody wanted to be."""
    node = seen_node(request)
    with node.engine.begin() as connection:
        secret = begin_session(connection, account_id, node.settings.web, node.now())
        audit(connection, "logged-in", f"account {account_id}", who=name)
    answer = RedirectResponse(to, status_code=303)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(cookie_name(request), secret, path="/", secure=is_secure, httponly=True, samesite="lax")
    return answer
