"""Projects and their people: who may do what in which.

A project is a name; every arrival, and every job handed in by path, is in one, and jobs, instances, deliveries and runs
follow from that. For each request the gate makes the node as its caller sees it: those projects in which they may do
what the route needs, as an engine whose every statement is narrowed to them (``carina.database.project_scope``) and
settings that name their sources alone. Pages, REST, DICOMweb, viewer and events are given that node and no other, so
that none of them has a filter that could be forgotten, and what is elsewhere is not there: 404.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select, update

from carina.database import ACCOUNT, EVERY_PROJECT, MEMBER, PROJECT
from carina.service.access.roles import Role
from carina.service.problems import Conflict, NotThere, NotUnderstood
from carina.web_settings import PROJECT_NAME


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may do something in a project."""

    account: str
    role: Role
    is_closed: bool


def roles_of(connection: Connection, account_id: int) -> dict[str, Role]:
    """What a person may do, by project."""
    wanted = select(MEMBER.c.project, MEMBER.c.role).where(MEMBER.c.account_id == account_id)
    return {row.project: Role(row.role) for row in connection.execute(wanted)}


def see_project(connection: Connection, name: str) -> None:
    """See that there is a project of this name.

    Raises:
        NotThere: there is none.
    """
    if connection.execute(select(PROJECT.c.name).where(PROJECT.c.name == name)).first() is None:
        raise NotThere("project.unknown", f"there is no project {name[:64]!r}.")


def new_project(connection: Connection, name: str, now: datetime) -> None:
    """Make a project; nothing and nobody is in it yet.

    Raises:
        NotUnderstood: that is no name for one.
        Conflict: there is one of this name.
    """
    if not re.fullmatch(PROJECT_NAME, name):
        words = f"{name[:64]!r} is no name of a project; expected up to 64 letters, digits, and any of . _ -."
        raise NotUnderstood("project.name", words)
    if connection.execute(select(PROJECT.c.name).where(PROJECT.c.name == name)).first():
        raise Conflict("project.name", f"there is a project called {name!r} already; choose another name.")
    connection.execute(insert(PROJECT), {"name": name, "created_at": now})


def members_of(connection: Connection, project: str) -> Sequence[Member]:
    """The people of a project, by name."""
    wanted = select(ACCOUNT.c.name, ACCOUNT.c.is_closed, MEMBER.c.role).join(
        MEMBER, MEMBER.c.account_id == ACCOUNT.c.id
    )
    rows = connection.execute(wanted.where(MEMBER.c.project == project).order_by(ACCOUNT.c.name))
    return [Member(account=row.name, role=Role(row.role), is_closed=bool(row.is_closed)) for row in rows]


def set_member(connection: Connection, project: str, account: str, role: Role) -> None:
    """Let a person have a role in a project, in place of any that they had.

    Raises:
        NotThere: there is no such project, or no such account.
    """
    see_project(connection, project)
    account_id = _account_id(connection, account)
    its = (MEMBER.c.account_id == account_id) & (MEMBER.c.project == project)
    if not connection.execute(update(MEMBER).where(its).values(role=role)).rowcount:
        connection.execute(insert(MEMBER), {"account_id": account_id, "project": project, "role": role})


def set_given(connection: Connection, account_id: int, decided: Collection[str], roles: Mapping[str, Role]) -> None:
    """Let a person have these roles and no others in the projects of which a provider of log-ins decides."""
    its = delete(MEMBER).where(MEMBER.c.account_id == account_id, MEMBER.c.project.in_(decided))
    connection.execute(its.execution_options(**EVERY_PROJECT))  # who logs in sees none yet
    for project, role in roles.items():
        connection.execute(insert(MEMBER), {"account_id": account_id, "project": project, "role": role})


def remove_member(connection: Connection, project: str, account: str) -> None:
    """Let a person have no role in a project.

    Raises:
        NotThere: they have none, or there is no such account or project.
    """
    its = (MEMBER.c.account_id == _account_id(connection, account)) & (MEMBER.c.project == project)
    if not connection.execute(delete(MEMBER).where(its)).rowcount:
        raise NotThere("project.member", f"{account} has no role in project {project!r}.")


def _account_id(connection: Connection, name: str) -> int:
    found = connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == name.strip().lower())).scalar()
    if found is None or not name.strip():
        raise NotThere(
            "access.account",
            f"there is no account called {name[:64]!r}: an administrator of the node makes one on Users.",
        )
    return int(found)
