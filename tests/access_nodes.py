"""A node whose pages ask for a log-in, and people and programs who come to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from html import unescape
from pathlib import Path

import httpx
from sqlalchemy import insert, select

from carina.config import load_settings
from carina.database import ACCOUNT, AUDIT
from carina.service.access.credentials import hash_password
from carina.service.access.roles import PEOPLE, PROGRAMS, Role
from carina.service.access.sessions import begin_session, new_token
from carina.service.node import RunningNode
from carina.service.serve import node_of
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.web_settings import DEFAULT_PROJECT
from served_nodes import NOON, add_job, hold, serving, settings_of

MACHINE = "ward7.example:4711"
"""Where the job ran: no reader is told."""

LOGIN = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[sources.web]
kind = "dicomweb"
[destinations.share]
kind = "folder"
path = "{folder}/results"
"""

PASSWORD = "a sentence that is long"


@dataclass
class Clock:
    """The node's time, which stands still until it is told."""

    at: datetime = NOON

    def __call__(self) -> datetime:
        return self.at

    def wait(self, **time: float) -> None:
        self.at += timedelta(**time)


@dataclass(kw_only=True)
class Guarded:
    """A served node with an account of each role, a token of each kind, a series and a job."""

    node: RunningNode
    url: str
    job: int
    arrival: int
    clock: Clock
    cookies: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def person(self, role: str | None, **headers: str) -> httpx.Client:
        """A browser of somebody who is logged in; None: of nobody."""
        client = httpx.Client(base_url=self.url, headers={"accept": "text/html", **headers})
        if role is not None:
            client.cookies.set("carina", self.cookies[role])
        return client

    def program(self, role: str | None) -> httpx.Client:
        shown = {"authorization": f"Bearer {self.tokens[role]}"} if role else {}
        return httpx.Client(base_url=self.url, headers=shown)

    def trail(self) -> list[tuple[str, str, str]]:
        """Who did what to what, in order."""
        with self.node.engine.connect() as connection:
            rows = connection.execute(select(AUDIT.c.who, AUDIT.c.action, AUDIT.c.subject).order_by(AUDIT.c.id))
            return [(row.who, row.action, row.subject) for row in rows]


def form_token(page: str) -> str:
    """The token in the forms of a page."""
    found = re.search(r'name="token" value="([^"]+)"', page)
    assert found is not None, page
    return unescape(found[1])


@cache
def kept_password() -> str:
    """Hashed once: it takes its time."""
    return hash_password(PASSWORD)


def account(node: RunningNode, name: str, role: Role, password_hash: str = "") -> int:
    row = {"name": name, "role": role, "password_hash": password_hash, "created_at": NOON}
    with node.engine.begin() as connection:
        return int(connection.execute(insert(ACCOUNT).returning(ACCOUNT.c.id), row).scalar_one())


@contextmanager
def guarded(folder: Path, more: str = "") -> Iterator[Guarded]:
    """Serve a node that asks for a log-in."""
    settings_of(folder, LOGIN.format(folder=folder))
    file = folder / "carina.toml"
    file.write_text(file.read_text().replace("[web]\n", "[web]\nlogin = true\n") + more)
    settings, clock = load_settings(file, {}), Clock()
    opened = node_of(settings)
    node = RunningNode(settings=settings, engine=opened.engine, now=clock)
    files = write_ct_series(chest_phantom(shape=(4, 64, 64), lesions=0, seed=5).volume, folder / "ct")
    arrival = hold(node, files)
    job = add_job(node, arrival, worker=MACHINE)
    node.is_recovered.set()
    cookies, tokens = {}, {}
    for role in PEOPLE:
        account_id = account(node, f"{role}.one", role, kept_password())
        with node.engine.begin() as connection:
            cookies[str(role)] = begin_session(connection, account_id, settings.web, clock.at)
    for role in PROGRAMS:
        with node.engine.begin() as connection:
            tokens[str(role)] = new_token(connection, f"{role}.program", role, clock.at)
            inside = new_token(connection, f"{role}.inside", role, clock.at, DEFAULT_PROJECT)
            tokens[f"{role} of {DEFAULT_PROJECT}"] = inside
    with serving(node) as url:
        yield Guarded(node=node, url=url, job=job, arrival=arrival, clock=clock, cookies=cookies, tokens=tokens)
