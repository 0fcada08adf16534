"""Accounts: their names, roles and passwords, and links that set a password once."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, count
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from carina.database import ACCOUNT, SESSION
from carina.service.access.credentials import digest_of, new_secret
from carina.service.access.roles import Role
from carina.service.problems import Conflict, NotThere, NotUnderstood, Refused

LINK_TIME = timedelta(hours=24)

LONGEST_ACCOUNT = 64
"""Characters of a name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_PARTS_OF_WORDS = "LMN"
"""First letters of the Unicode categories of letters, the marks on them, and digits."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A person; ``is_ready`` says that they can log in. An empty name is not chosen yet."""

    id: int
    name: str
    role: Role
    is_ready: bool
    is_closed: bool
    has_link: bool
    is_external: bool
    created_at: datetime


def list_accounts(connection: Connection) -> Sequence[Account]:
    """Every account that has a name, by it."""
    rows = connection.execute(select(ACCOUNT).where(ACCOUNT.c.name != "").order_by(ACCOUNT.c.name))
    return [_account(row) for row in rows]


def find_account(connection: Connection, account_id: int) -> Account:
    """An account by its id.

    Raises:
        NotThere: there is none.
    """
    row = connection.execute(select(ACCOUNT).where(ACCOUNT.c.id == account_id)).first()
    if row is None:
        raise NotThere("access.account", f"there is no account {account_id}.")
    return _account(row)


def account_name(text: str) -> str:
    """A name as accounts and tokens have it.

    Raises:
        NotUnderstood: it has other characters, or too many.
    """
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        words = f"{text[:64]!r} is no name; expected up to 64 letters a to z, digits, and any of . _ - @."
        raise NotUnderstood("access.name", words)
    return name


def readable_name(text: str) -> str:
    """A name that somebody has elsewhere as an account has it: letters of any script, in lower case; it may be empty.

    What accounts don't have becomes a dash between two words; letters that only look otherwise become the usual ones
    (NFKC, Unicode Standard Annex 15).
    """
    usual = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    kept = (one if one in "._@" or unicodedata.category(one)[0] in _PARTS_OF_WORDS else " " for one in usual)
    return "-".join("".join(kept).split()).strip("._@-")[:LONGEST_ACCOUNT].rstrip("-")


def _free_name(connection: Connection, wanted: str) -> str:
    """A name that no account has: as wanted, or with the first number that makes it another one."""
    numbered = (f"{wanted[: LONGEST_ACCOUNT - len(f'-{number}')]}-{number}" for number in count(2))
    taken = select(ACCOUNT.c.id)
    names = chain([wanted], numbered)
    return next(one for one in names if connection.execute(taken.where(ACCOUNT.c.name == one)).first() is None)


def new_account(connection: Connection, name: str, role: Role, now: datetime) -> int:
    """An account without a password; gives its id.

    Raises:
        Conflict: there is one of that name.
    """
    if connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == name)).first():
        raise Conflict("access.name", f"there is an account called {name!r} already; choose another name.")
    row = {"name": name, "role": role, "created_at": now}
    return int(connection.execute(insert(ACCOUNT).returning(ACCOUNT.c.id), row).scalar_one())


def new_link(connection: Connection, account_id: int, now: datetime) -> str:
    """What a link carries that sets an account's password, once and within a day; the link before it ends."""
    find_account(connection, account_id)
    secret = new_secret()
    values = {"link_sha256": digest_of(secret), "link_until": now + LINK_TIME}
    connection.execute(update(ACCOUNT).where(ACCOUNT.c.id == account_id).values(**values))
    return secret


def first_link(connection: Connection, now: datetime) -> str | None:
    """A link for the first administrator, whose account is made; None where an administrator can log in."""
    if _admins(connection):
        return None
    found = connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == "")).scalar()
    return new_link(connection, found or new_account(connection, "", Role.ADMIN, now), now)


def account_of_link(connection: Connection, link: str, now: datetime) -> Account:
    """Whose link it is.

    Raises:
        Refused: it is nobody's, was used, or is too old.
    """
    row = connection.execute(select(ACCOUNT).where(ACCOUNT.c.link_sha256 == digest_of(link))).first()
    if row is None or row.is_closed or row.link_until is None or row.link_until < now:
        words = "the link was used, is older than a day, or was replaced: ask an administrator for a new one."
        raise Refused("access.link", words)
    return _account(row)


def set_password(connection: Connection, account: Account, name: str, password_hash: str) -> None:
    """Set the password by a link, which ends with all sessions of the account; a name is set where there is none.

    Raises:
        Conflict: another account has the name.
    """
    if not account.name and connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == name)).first():
        raise Conflict("access.name", f"there is an account called {name!r} already; choose another name.")
    values = {"password_hash": password_hash, "link_sha256": "", "name": account.name or name}
    connection.execute(update(ACCOUNT).where(ACCOUNT.c.id == account.id).values(**values))
    connection.execute(delete(SESSION).where(SESSION.c.account_id == account.id))


def change_password(connection: Connection, account_id: int, until_now: str, password_hash: str) -> None:
    """Set a password in place of the one that was ``until_now``, as they are kept; a link to set one ends.

    Raises:
        Conflict: it was changed meanwhile.
    """
    same = (ACCOUNT.c.id == account_id) & (ACCOUNT.c.password_hash == until_now)
    values = {"password_hash": password_hash, "link_sha256": ""}
    if not connection.execute(update(ACCOUNT).where(same).values(**values)).rowcount:
        raise Conflict("access.password", "the password was changed meanwhile: log in again.")


def password_of(connection: Connection, name: str) -> tuple[int, str]:
    """The id of an account that may log in, and its password as it is kept; ``(0, "")`` where there is none."""
    wanted = select(ACCOUNT).where(ACCOUNT.c.name == name.strip().lower(), ACCOUNT.c.is_closed == 0)
    row = connection.execute(wanted).first()
    return (row.id, row.password_hash) if row and row.name else (0, "")


def set_role(connection: Connection, account_id: int, role: Role) -> Account:
    """Change a role; it holds from the next request on.

    Raises:
        Conflict: there would be no administrator left.
    """
    account = find_account(connection, account_id)
    if role is not Role.ADMIN:
        _refuse_last(connection, account)
    connection.execute(update(ACCOUNT).where(ACCOUNT.c.id == account_id).values(role=role))
    return account


def set_closed(connection: Connection, account_id: int, *, is_closed: bool) -> Account:
    """Close an account and end its sessions and links, or open it again.

    Raises:
        Conflict: there would be no administrator left.
    """
    account = find_account(connection, account_id)
    if is_closed:
        _refuse_last(connection, account)
        connection.execute(delete(SESSION).where(SESSION.c.account_id == account_id))
    values = {"is_closed": int(is_closed), "link_sha256": ""}
    connection.execute(update(ACCOUNT).where(ACCOUNT.c.id == account_id).values(**values))
    return account


def external_account(connection: Connection, subject: str, name: str, role: Role, now: datetime) -> int:
    """The account of somebody whom a provider vouches for, with the role that it gives them; gives its id.

    It is known by ``subject`` alone; a name that another account has gets a number.

    Raises:
        Refused: the account is closed.
    """
    row = connection.execute(select(ACCOUNT).where(ACCOUNT.c.subject == subject)).first()
    account_id = row.id if row else new_account(connection, _free_name(connection, name), role, now)
    if row is not None and row.is_closed:
        raise Refused("access.closed", "the account is closed: ask an administrator of this node.")
    connection.execute(update(ACCOUNT).where(ACCOUNT.c.id == account_id).values(subject=subject, role=role))
    return int(account_id)


def administrators(connection: Connection) -> list[str]:
    """The names of those who can let others in: the node's administrators who can log in."""
    wanted = select(ACCOUNT.c.name).where(ACCOUNT.c.id.in_(_admins(connection))).order_by(ACCOUNT.c.name)
    return list(connection.execute(wanted).scalars())


def _refuse_last(connection: Connection, account: Account) -> None:
    if _admins(connection) == [account.id]:
        words = "is the last administrator who can log in: make another one first."
        raise Conflict("access.last-admin", f"{account.name} {words}")


def _admins(connection: Connection) -> list[int]:
    """The administrators who can log in."""
    can = (ACCOUNT.c.password_hash != "") | (ACCOUNT.c.subject != "")
    wanted = select(ACCOUNT.c.id).where(ACCOUNT.c.role == Role.ADMIN, ACCOUNT.c.is_closed == 0, can)
    return list(connection.execute(wanted).scalars())


def _account(row: Row[Any]) -> Account:
    return Account(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        is_ready=bool(row.password_hash or row.subject),
        is_closed=bool(row.is_closed),
        has_link=bool(row.link_sha256),
        is_external=bool(row.subject),
        created_at=row.created_at,
    )
