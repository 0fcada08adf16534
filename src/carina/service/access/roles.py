"""Roles, and what each may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from carina.service.problems import NotUnderstood


class Role(StrEnum):
    """What a person or a program is to the node, or in a project.

    A member is a person who is nothing outside their projects, a program one whose token is of one project.
    """

    PROGRAM = "program"
    SENDER = "sender"
    MEMBER = "member"
    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"


class Need(StrEnum):
    """What a route asks of whoever calls it."""

    NOTHING = "nothing"
    STORE = "store"
    READ = "read"
    OPERATE = "operate"
    ADMINISTER = "administer"


MAY: Mapping[Role, frozenset[Need]] = {
    Role.PROGRAM: frozenset({Need.NOTHING}),
    Role.SENDER: frozenset({Need.NOTHING, Need.STORE}),
    Role.MEMBER: frozenset({Need.NOTHING, Need.READ}),
    Role.READER: frozenset({Need.NOTHING, Need.READ}),
    Role.OPERATOR: frozenset({Need.NOTHING, Need.READ, Need.STORE, Need.OPERATE}),
    Role.ADMIN: frozenset(Need),
}
"""A sender puts series into the node and sees none; a reader sees all and puts nothing in.

A member reads the same pages as a reader, and sees on them what is in their projects. A program of one project may do
what its role there says, and nothing else: a sender sees no page.
"""

IN_PROJECT = (Role.READER, Role.OPERATOR, Role.ADMIN)
"""Roles that a person may have in one project."""

PEOPLE = (Role.MEMBER, *IN_PROJECT)
"""Roles of accounts on the whole node."""

PROGRAMS = (Role.SENDER, Role.READER, Role.OPERATOR)
"""Roles of tokens: people alone decide who may log in."""


def least_role(need: Need) -> Role | None:
    """The role that is to be had at least; None where nothing is needed."""
    return None if need is Need.NOTHING else next(role for role in Role if need in MAY[role])


def role_among(text: str, roles: Sequence[Role]) -> Role:
    """The role that a text names.

    Raises:
        NotUnderstood: it is none of ``roles``.
    """
    if text not in roles:
        raise NotUnderstood("access.role", f"role: is {text[:20]!r}; expected {', '.join(roles)}.")
    return Role(text)
