"""Who works on a node: each process signs in the node's folder, and a sign that is fresh counts."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from carina.config import Settings
from carina.errors import BadConfig

SIGNED = "alive"
"""The folder of a node with an empty file, HOST:PID, for each process that works on it."""

GONE_AFTER_S = 60.0
"""A process that has not signed for so long counts as gone."""


def has_one_host(settings: Settings) -> bool:
    """Whether a node's database is SQLite, which one machine has alone."""
    return not settings.node.database or settings.node.database.startswith("sqlite")


def host_of(sign: Path) -> str:
    """The host that signed."""
    return sign.name.rpartition(":")[0]


def ages_of(folder: Path, now: float) -> Iterator[tuple[Path, float]]:
    """The signs in a node's folder with their ages in seconds; times are those of the file system."""
    for sign in sorted((folder / SIGNED).glob("*:*")):
        with suppress(FileNotFoundError):
            yield sign, now - sign.stat().st_mtime


def other_host(folder: Path, host: str, age_s: float) -> BadConfig:
    """The refusal, since a host works on the node of a folder."""
    words = (
        f"host {host} works on this node (seen {age_s:.0f} s ago), and its database is SQLite, which one machine has"
    )
    how = "name a PostgreSQL server (node.database) for more, or end what runs there"
    told = f"{folder.absolute()}: {words} alone: {how}; what was killed counts as gone after {GONE_AFTER_S:.0f} s."
    return BadConfig("node.other-host", told)


def check_host(settings: Settings) -> None:
    """See that no other host works on a node: for a command, which is over soon and does not sign.

    Raises:
        BadConfig: ``node.other-host``, one does, and the database is SQLite.
    """
    folder = Path(settings.node.folder)
    if not has_one_host(settings) or not (folder / SIGNED).is_dir():
        return
    for sign, age_s in ages_of(folder, _now(folder / SIGNED)):
        if host_of(sign) != platform.node() and abs(age_s) <= GONE_AFTER_S:
            raise other_host(folder, host_of(sign), abs(age_s))


def _now(folder: Path) -> float:
    """The time of a folder's file system; where nothing can be written there, this machine's."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
