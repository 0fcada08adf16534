"""Whoever makes a request."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from carina.service.access.credentials import is_same
from carina.service.access.roles import MAY, Need, Role
from carina.service.problems import Refused

ANYBODY = "web"
"""Who changes things where nobody logs in: whoever sits at this machine."""

asking: ContextVar[str] = ContextVar("asking", default=ANYBODY)
"""The name of whoever makes the request that is being answered, for the audit trail: no change is without it."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A person with a session, a program with a token, or whoever is at this machine.

    ``form_token`` is what forms on their pages carry; ``session`` is the digest of the cookie, empty: there is none.
    ``role`` is theirs on the whole node, None of somebody who has not logged in; ``roles`` are theirs by project.
    """

    name: str
    role: Role | None
    form_token: str = ""
    session: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)

    def may(self, need: Need, *, everywhere: bool = False) -> bool:
        """Whether they may do what a route needs in any project, or everywhere."""
        if self.role is None:
            return need is Need.NOTHING
        return need in MAY[self.role] or (not everywhere and any(need in MAY[role] for role in self.roles.values()))

    def projects(self, need: Need) -> frozenset[str] | None:
        """The projects in which they may do it; None: in every one."""
        if self.role not in (None, Role.MEMBER, Role.PROGRAM) and need in MAY[self.role]:
            return None
        return frozenset(name for name, role in self.roles.items() if need in MAY[role])

    def may_in(self, need: Need, project: str) -> bool:
        """Whether they may do it in a project."""
        projects = self.projects(need)
        return projects is None or project in projects

    def may_operate(self, project: str) -> bool:
        """Whether buttons that change what is in a project are shown."""
        return self.may_in(Need.OPERATE, project)

    def shown_role(self, project: str = "") -> str:
        """The role that counts in a project; with none named all of theirs, that on the whole node first."""
        if project:
            return f"{self.roles[project]} in project {project}" if project in self.roles else str(self.role)
        inside = [f"{role} in project {name}" for name, role in self.roles.items()]
        everywhere = [] if inside and self.role in (Role.PROGRAM, Role.MEMBER) else [str(self.role)]
        return ", ".join(everywhere + inside)

    @property
    def may_operate_some(self) -> bool:
        """Whether buttons are shown that change what they may change."""
        return self.may(Need.OPERATE)

    @property
    def may_operate_all(self) -> bool:
        """Whether they may do what an operator of the whole node may: name a folder of its machine, for one."""
        return self.may(Need.OPERATE, everywhere=True)

    @property
    def sees_all(self) -> bool:
        """Whether what they are shown is all that there is."""
        return self.projects(Need.READ) is None

    @property
    def is_in_nothing(self) -> bool:
        """Whether they have neither a role on the whole node nor one in a project."""
        return self.role is Role.MEMBER and not self.roles

    @property
    def operates_all_seen(self) -> bool:
        """Whether there is something that they see, and they operate in whatever that is of."""
        seen, operated = self.projects(Need.READ), self.projects(Need.OPERATE)
        return operated is None or (bool(seen) and seen is not None and seen <= operated)

    @property
    def may_administer(self) -> bool:
        """Whether accounts are shown."""
        return self.may(Need.ADMINISTER, everywhere=True)


def caller_of(request: HTTPConnection) -> Caller:
    """Whoever makes a request, as the gate found them."""
    caller: Caller = request.state.caller
    return caller


def check_form(request: HTTPConnection, token: str) -> None:
    """See that a form is one of a page that whoever sends it was shown.

    Raises:
        Refused: it is another's, or an older one.
    """
    if not is_same(token, caller_of(request).form_token):
        words = "the page is from before you logged in, or the node was started again: go back and reload it."
        raise Refused("web.token", words)
