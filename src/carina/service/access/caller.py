"""Whoever makes a request."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from carina.service.access.roles import MAY, Need, Role

ANYBODY = "web"
"""Who changes things where nobody logs in: whoever sits at this machine."""

asking: ContextVar[str] = ContextVar("asking", default=ANYBODY)
"""The name of whoever makes the request that is being answered, for the audit trail: no change is without it."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A person with a session, a program with a token, or whoever is at this machine.

    ``form_token`` is what forms on their pages carry; ``session`` is the digest of the cookie, empty: there is none.
    ``role`` is None of somebody who has not logged in.
    """

    name: str
    role: Role | None
    form_token: str = ""
    session: str = ""

    def may(self, need: Need) -> bool:
        """Whether they may do what a route needs."""
        return need is Need.NOTHING if self.role is None else need in MAY[self.role]

    @property
    def may_operate(self) -> bool:
        """Whether buttons that change jobs are shown."""
        return self.may(Need.OPERATE)

    @property
    def may_administer(self) -> bool:
        """Whether accounts are shown."""
        return self.may(Need.ADMINISTER)


def caller_of(request: HTTPConnection) -> Caller:
    """Whoever makes a request, as the gate found them."""
    caller: Caller = request.state.caller
    return caller
