"""What stands against parts of a node now and may pass by itself: room, mounts, files beyond the settings.

The rest of the node works, so that a start is not refused for any of it; nor is it for results that can't go back to
who sent the series. ``carina serve
--check`` complains; a running node says it in its log and in its health, and goes on by itself once it has passed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, MutableSequence
from pathlib import Path

from carina.config import FolderDestination, FolderSource, Settings
from carina.errors import BadConfig
from carina.pipeline.places import check_place
from carina.service.check_sources import sender_mistakes
from carina.service.check_tls import unusable_mistakes
from carina.toml import Mistake

_LOG = logging.getLogger(__name__)


def passing_mistakes(settings: Settings) -> list[Mistake]:
    """All of it, by key. Looking at a mount whose server is gone may take for ever: a start does not wait for it."""
    checks: tuple[Callable[[Settings], Iterator[Mistake]], ...] = (
        _watched_folders,
        _submit_below,
        _destinations,
        _room,
        unusable_mistakes,
        sender_mistakes,
    )
    return [mistake for check in checks for mistake in check(settings)]


def look_around(settings: Settings, resting: MutableSequence[Mistake]) -> None:
    """Bring ``resting`` up to what rests now; the log says what has begun to, and what is over."""
    found, before = passing_mistakes(settings), {one.key for one in resting}
    for mistake in found:
        if mistake.key not in before:
            fields = {"key": ".".join(mistake.key), "reason": mistake.words}
            _LOG.warning("what needs this rests, the node goes on", extra=fields)
    for key in before - {one.key for one in found}:
        _LOG.info("what needed this works again", extra={"key": ".".join(key)})
    resting[:] = found


def _watched_folders(settings: Settings) -> Iterator[Mistake]:
    watched = {name: one.path for name, one in settings.sources.items() if isinstance(one, FolderSource)}
    for name, path in watched.items():
        key = ("sources", name, "path")
        if not Path(path).is_dir():
            yield Mistake(key=key, words=f"{path!r} is no folder that is there; make it first")
        elif not os.access(path, os.R_OK | os.X_OK):
            yield Mistake(key=key, words=f"{path!r} can't be read by this user; let the node's user read it")


def _submit_below(settings: Settings) -> Iterator[Mistake]:
    for folder in settings.node.submit_below:
        if not Path(folder).is_dir():
            words = f"{folder!r} is no folder that is there; make it first"
            yield Mistake(key=("node", "submit_below"), words=words)


def _destinations(settings: Settings) -> Iterator[Mistake]:
    for name, one in settings.destinations.items():
        if isinstance(one, FolderDestination):
            try:
                check_place(Path(one.path))
            except BadConfig as error:
                yield Mistake(key=("destinations", name, "path"), words=error.message)


def _room(settings: Settings) -> Iterator[Mistake]:
    folder, least = Path(settings.node.folder), settings.node.free_gb
    above = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), None)
    total, _, free = shutil.disk_usage(above) if above else (1, 1, 0)
    if total and free / 1e9 < least:
        words = f"{least:g} GB must stay free and {free / 1e9:.1f} GB are; every sender would be refused"
        yield Mistake(key=("node", "free_gb"), words=words)
