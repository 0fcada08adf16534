"""Who makes a request: a person by the cookie of a session, a program by its token or its certificate."""

from __future__ import annotations

import base64
import binascii

from starlette.requests import Request

from carina.database import read_only
from carina.service.access.caller import ANYBODY, Caller, caller_of
from carina.service.access.credentials import digest_of
from carina.service.access.roles import Role
from carina.service.access.sessions import (
    is_to_be_noted,
    note_session,
    note_token,
    session_caller,
    session_row,
    token_caller,
    token_row,
)
from carina.service.node import RunningNode
from carina.service.peers import PEER


class Identifier:
    """Finds who calls a node."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node

    def caller(self, request: Request, *, is_quiet: bool) -> Caller:
        """Who calls; somebody without a role where nobody is known. A quiet request is no use of a session."""
        if not self._node.settings.web.login:
            return Caller(name=ANYBODY, role=Role.ADMIN, form_token=self._node.token)
        secret = _shown_token(request.headers.get("authorization", ""))
        if secret is not None:
            return self._program(secret)
        cookie = request.cookies.get(cookie_name(request))
        person = self._person(cookie, is_quiet=is_quiet) if cookie else None
        return person or self._certified(request) or self._nobody()

    def is_still_in(self, request: Request) -> bool:
        """Whether whoever was let in would be let in now, as the same: what is sent for long ends with what they show.

        A session, a token and a certificate are looked at as they are when a request begins.
        """
        return self.caller(request, is_quiet=True) == caller_of(request)

    def _person(self, cookie: str, *, is_quiet: bool) -> Caller | None:
        now, web = self._node.now(), self._node.settings.web
        with read_only(self._node.engine) as connection:
            row = session_row(connection, digest_of(cookie), web, now)
            if row is None:
                return None
            caller = session_caller(connection, row, cookie)
        if not is_quiet and is_to_be_noted(row, now):
            with self._node.engine.begin() as connection:
                note_session(connection, row.id, now)
        return caller

    def _program(self, secret: str) -> Caller:
        now = self._node.now()
        with read_only(self._node.engine) as connection:
            row = token_row(connection, secret)
        if row is None:
            return self._nobody()
        if is_to_be_noted(row, now):
            with self._node.engine.begin() as connection:
                note_token(connection, row.id, now)
        return token_caller(row)

    def _certified(self, request: Request) -> Caller | None:
        """Who showed a certificate that ``[web.tls] trusted`` signs: a modality or a PACS, which only stores."""
        name = getattr(request.state, PEER, "")
        return Caller(name=f"certificate {name}", role=Role.SENDER, form_token=self._node.token) if name else None

    def _nobody(self) -> Caller:
        return Caller(name="nobody", role=None, form_token=self._node.token)


def cookie_name(request: Request) -> str:
    """The session's cookie; over TLS its name makes browsers bind it to this host (RFC 6265bis, 4.1.3.2)."""
    return "__Host-carina" if request.url.scheme == "https" else "carina"


def _shown_token(authorization: str) -> str | None:
    """The token of an ``Authorization`` header: a bearer's, or the password of Basic; None where there is no header."""
    if not authorization:
        return None
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
