"""Sessions of people and tokens of programs: who shows a secret, and until when it counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from carina.database import ACCOUNT, SESSION, TOKEN
from carina.service.access.caller import Caller
from carina.service.access.credentials import digest_of, form_token_of, new_secret
from carina.service.access.members import roles_of, see_project
from carina.service.access.roles import PROGRAMS, Role, role_among
from carina.service.problems import Conflict, NotThere
from carina.web_settings import WebSettings

SEEN_EVERY = timedelta(minutes=1)
"""How exactly it is kept when a session or token was last used: a row is not written for every picture."""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may show; the secret itself is not kept."""

    id: int
    name: str
    role: Role
    project: str
    created_at: datetime
    used_at: datetime | None


def begin_session(connection: Connection, account_id: int, web: WebSettings, now: datetime) -> str:
    """Log somebody in; gives the cookie's value. Sessions that have ended are removed."""
    too_old = (SESSION.c.created_at < now - timedelta(seconds=web.session_s)) | (
        SESSION.c.used_at < now - timedelta(seconds=web.idle_s)
    )
    connection.execute(delete(SESSION).where(too_old))
    secret = new_secret()
    row = {"account_id": account_id, "sha256": digest_of(secret), "created_at": now, "used_at": now}
    connection.execute(insert(SESSION), row)
    return secret


def end_other_sessions(connection: Connection, account_id: int, digest: str) -> int:
    """Log somebody out everywhere but here; gives from how many places."""
    others = (SESSION.c.account_id == account_id) & (SESSION.c.sha256 != digest)
    return int(connection.execute(delete(SESSION).where(others)).rowcount)


def end_session(connection: Connection, digest: str) -> None:
    """Log somebody out."""
    connection.execute(delete(SESSION).where(SESSION.c.sha256 == digest))


def session_row(connection: Connection, digest: str, web: WebSettings, now: datetime) -> Any:
    """The session row that a cookie's digest belongs to, with its account; None where it has ended."""
    kept = (SESSION.c.id, SESSION.c.account_id, SESSION.c.used_at, SESSION.c.created_at)
    wanted = select(*kept, ACCOUNT.c.name, ACCOUNT.c.role).join(ACCOUNT, ACCOUNT.c.id == SESSION.c.account_id)
    row = connection.execute(wanted.where(SESSION.c.sha256 == digest, ACCOUNT.c.is_closed == 0)).first()
    if row is None:
        return None
    is_idle = now - row.used_at > timedelta(seconds=web.idle_s)
    return None if is_idle or now - row.created_at > timedelta(seconds=web.session_s) else row


def session_caller(connection: Connection, row: Any, secret: str) -> Caller:
    """The person of a session."""
    return Caller(
        name=row.name,
        role=Role(row.role),
        form_token=form_token_of(secret),
        session=digest_of(secret),
        roles=roles_of(connection, row.account_id),
    )


def token_row(connection: Connection, secret: str) -> Row[Any] | None:
    """The token that is shown; None where it is none."""
    return connection.execute(select(TOKEN).where(TOKEN.c.sha256 == digest_of(secret))).first()


def token_caller(row: Row[Any]) -> Caller:
    """The program of a token."""
    role = Role(row.role)
    inside = {"role": Role.PROGRAM, "roles": {row.project: role}} if row.project else {"role": role}
    return Caller(name=f"token {row.name}", **inside)


def is_to_be_noted(row: Row[Any], now: datetime) -> bool:
    """Whether it is a while since the use of a session or token was noted."""
    return row.used_at is None or now - row.used_at > SEEN_EVERY


def note_session(connection: Connection, session_id: int, now: datetime) -> None:
    """A session is in use."""
    connection.execute(update(SESSION).where(SESSION.c.id == session_id).values(used_at=now))


def note_token(connection: Connection, token_id: int, now: datetime) -> None:
    """A token is in use."""
    connection.execute(update(TOKEN).where(TOKEN.c.id == token_id).values(used_at=now))


def new_token(connection: Connection, name: str, role: str, now: datetime, project: str = "") -> str:
    """A token for a program, everywhere or in one project; gives what it is to show, which can't be told again.

    Raises:
        NotUnderstood: the role is none that a program can have.
        NotThere: there is no such project.
        Conflict: there is one of that name.
    """
    role = role_among(role, PROGRAMS)
    if connection.execute(select(TOKEN.c.id).where(TOKEN.c.name == name)).first():
        raise Conflict("access.name", f"there is a token called {name!r} already; revoke it, or choose another name.")
    if project:
        see_project(connection, project)
    secret = new_secret()
    row = {"name": name, "role": role, "project": project, "sha256": digest_of(secret), "created_at": now}
    connection.execute(insert(TOKEN), row)
    return secret


def revoke_token(connection: Connection, token_id: int) -> str:
    """Let a token count no longer; gives its name.

    Raises:
        NotThere: there is none.
    """
    name = connection.execute(delete(TOKEN).where(TOKEN.c.id == token_id).returning(TOKEN.c.name)).scalar()
    if name is None:
        raise NotThere("access.token", f"there is no token {token_id}.")
    return str(name)


def list_tokens(connection: Connection) -> Sequence[Token]:
    """Every token, by its name."""
    return [
        Token(
            id=row.id,
            name=row.name,
            role=Role(row.role),
            project=row.project,
            created_at=row.created_at,
            used_at=row.used_at,
        )
        for row in connection.execute(select(TOKEN).order_by(TOKEN.c.name))
    ]
