"""What every request and every part of a running node works with."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from sqlalchemy import Engine
from starlette.requests import HTTPConnection

from carina.certificates import TlsFiles, Validity, own_validity
from carina.config import Destination, Settings
from carina.database import DataVersion, OfVersion, Outages, OwnFolder, read_only, seeing
from carina.jobs.listing import job_on_source
from carina.jobs.sources import kept_source
from carina.receive.store import InstanceStore
from carina.receive.uploads import Uploads
from carina.sections import UPLOADS
from carina.service.access.members import see_project
from carina.service.loops import Part, PartStatus
from carina.service.networks import network_troubles
from carina.service.tallies import Tallies
from carina.toml import Mistake

MOST_VIEWS = 256


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunningNode:
    """A node: its settings, its folder and database, its parts.

    ``outages`` are those that a part outlives, by its name; ``resting`` what stands against a place or a destination
    now and may pass; ``held_certificates`` the dates of what a listener, ``dicom`` or ``web``, shows; ``left_out`` what
    searches of all studies could not read, and when; ``damaged`` the files that don't hold what was recorded of them,
    and whose they are; ``database_file`` the number of SQLite's file at the start.
    ``stop`` is set once it is to end, ``is_recovered`` once it may receive. ``token`` is what the forms of its own
    pages carry, so that no other page can send them. ``projects`` are those that it shows, None: every one.
    """

    settings: Settings
    engine: Engine
    now: Callable[[], datetime] = utc_now
    stop: threading.Event = field(default_factory=threading.Event)
    is_recovered: threading.Event = field(default_factory=threading.Event)
    parts: list[Part] = field(default_factory=list)
    outages: dict[str, Outages] = field(default_factory=dict)
    resting: list[Mistake] = field(default_factory=list)
    held_certificates: dict[str, Validity] = field(default_factory=dict)
    left_out: dict[str, datetime] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    database_file: int | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    projects: frozenset[str] | None = None
    _whole: RunningNode | None = None

    def seen_in(self, projects: frozenset[str] | None) -> RunningNode:
        """The node as somebody sees it who sees these projects, and of them those that this one shows; None: all.

        Its connections are narrowed to them, its settings name their sources and destinations and no others.
        """
        if projects is None:
            return self
        whole = self._whole or self
        return whole.views.of(projects if self.projects is None else projects & self.projects)

    def only(self, project: str) -> RunningNode:
        """The node with one project alone; with none named, as it is.

        Raises:
            NotThere: there is no such project.
        """
        if not project:
            return self
        with read_only(self.engine) as connection:
            see_project(connection, project)
        return self.seen_in(frozenset({project}))

    @cached_property
    def views(self) -> Views:
        """The node as those see it who see some projects only."""
        return Views(self)

    @cached_property
    def store(self) -> InstanceStore:
        """What takes instances, whichever way they come: one for all, since it keeps senders in turn."""
        return self._whole.store if self._whole else InstanceStore(self.settings, self.engine)

    @cached_property
    def own(self) -> OwnFolder:
        """Whether its folder is there: one for all parts and requests, which tells the log."""
        return self._whole.own if self._whole else OwnFolder(self.folder, self.engine, "node")

    @property
    def network_troubles(self) -> Mapping[str, str]:
        """What is wrong with each network that jobs need, whoever looks, by its key in the settings."""
        return network_troubles(self.every_setting, self.now())

    @property
    def every_setting(self) -> Settings:
        """The settings of the node, whoever looks."""
        return (self._whole or self).settings

    @property
    def every_destination(self) -> Mapping[str, Destination]:
        """The destinations of the node, whoever looks: a job's may be of a source that they don't see."""
        return self.every_setting.destinations

    def hold_certificate(self, files: TlsFiles) -> None:
        """Note what a listener that begins to read its files shows until it ends."""
        if found := own_validity(files):
            self.held_certificates[files.table[0]] = found

    @property
    def uploads(self) -> Uploads:
        """Files that people send from the worklist: each of them finds their own.

        Raises:
            FolderAway: they are not there now.
        """
        self.own.make(UPLOADS)
        return (self._whole or self)._uploads

    @cached_property
    def _uploads(self) -> Uploads:
        return Uploads(
            self.folder,
            self.settings.uploads,
            self.settings.node.free_gb,
            lambda content: job_on_source(self.engine, kept_source(self.folder, content)),
        )

    @cached_property
    def version(self) -> DataVersion:
        """Whether the database has changed: one look for all."""
        return self._whole.version if self._whole else DataVersion(self.engine)

    @cached_property
    def waiting(self) -> OfVersion[Any]:
        """Series that are no jobs yet, as a page read them last."""
        return OfVersion()

    @cached_property
    def known_projects(self) -> OfVersion[Sequence[str]]:
        """Every project that it shows by name, as a page read them last."""
        return OfVersion()

    @cached_property
    def tallies(self) -> Tallies:
        """How many jobs and deliveries there are."""
        return Tallies(self.engine)

    def count_anew(self) -> None:
        """Whoever asks next, of whichever projects, is told counts of now: something was changed by hand."""
        whole = self._whole or self
        for one in (whole, *whole.views.made):
            one.tallies.forget()

    @property
    def statuses(self) -> Sequence[PartStatus]:
        """How the parts are that it shows."""
        return [part.status for part in self.parts if self.shows_part(part.name)]

    def shows_part(self, name: str) -> bool:
        """Whether a part is one of all projects, or called after a source or destination of this node's settings."""
        named = (*self.settings.sources, *self.settings.destinations)
        return self.projects is None or " " not in name or name.endswith(tuple(f" {one}" for one in named))

    @property
    def folder(self) -> Path:
        """Where it keeps what it accepted and made."""
        return Path(self.settings.node.folder)


def file_of_database(engine: Engine) -> int | None:
    """The number that the file of a SQLite database has now; 0 where it is not there, None of a server's database."""
    if engine.dialect.name != "sqlite":
        return None
    try:
        return Path(engine.url.database or "").stat().st_ino
    except OSError:
        return 0


class Views:
    """A node as it is seen by those who see some projects only: one for each choice of them that was asked for."""

    def __init__(self, whole: RunningNode) -> None:
        self._whole = whole
        self._lock = Lock()
        self._made: OrderedDict[frozenset[str], RunningNode] = OrderedDict()

    @property
    def made(self) -> list[RunningNode]:
        """The choices that are kept."""
        with self._lock:
            return list(self._made.values())

    def of(self, projects: frozenset[str]) -> RunningNode:
        """The node with these projects and no others."""
        with self._lock:
            if projects not in self._made:
                engine, settings = seeing(self._whole.engine, projects), _settings_in(self._whole.settings, projects)
                seen = replace(self._whole, engine=engine, settings=settings, projects=projects, _whole=self._whole)
                self._made[projects] = seen
            self._made.move_to_end(projects)
            while len(self._made) > MOST_VIEWS:
                self._made.popitem(last=False)
            return self._made[projects]


def _settings_in(settings: Settings, projects: frozenset[str]) -> Settings:
    """Settings without the sources of other projects, and without destinations that only those name."""
    sources = {name: source for name, source in settings.sources.items() if source.project in projects}
    named = {name for source in sources.values() for name in (*source.destinations, source.earlier, source.ask)}
    destinations = {name: one for name, one in settings.destinations.items() if name in named}
    return msgspec.structs.replace(settings, sources=sources, destinations=destinations)


def seen_node(request: HTTPConnection) -> RunningNode:
    """The node as whoever asks sees it: the gate has put it there, and there is no other way to it."""
    node: RunningNode = request.state.node
    return node
