"""What every request and every part of a running node works with."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine

from carina.config import Settings
from carina.receive.store import InstanceStore
from carina.receive.uploads import Uploads
from carina.service.loops import Part
from carina.service.tallies import Tallies


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class RunningNode:
    """A node: its settings, its folder and database, its parts.

    ``stop`` is set once it is to end, ``is_recovered`` once it may receive. ``token`` is what the forms of its own
    pages carry, so that no other page can send them.
    """

    settings: Settings
    engine: Engine
    now: Callable[[], datetime] = utc_now
    stop: threading.Event = field(default_factory=threading.Event)
    is_recovered: threading.Event = field(default_factory=threading.Event)
    parts: list[Part] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @cached_property
    def store(self) -> InstanceStore:
        """What takes instances, whichever way they come."""
        return InstanceStore(self.settings, self.engine)

    @cached_property
    def uploads(self) -> Uploads:
        """Files that people send from the worklist."""
        return Uploads(self.folder, self.settings.uploads, self.settings.node.free_gb)

    @cached_property
    def tallies(self) -> Tallies:
        """How many jobs and deliveries there are."""
        return Tallies(self.engine)

    @property
    def folder(self) -> Path:
        """Where it keeps what it accepted and made."""
        return Path(self.settings.node.folder)
