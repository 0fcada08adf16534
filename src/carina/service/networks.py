"""Whether the networks that the node's pipelines need can be used: looked at anew only where a file changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from carina.config import RuntimeKind, Settings
from carina.errors import BadConfig
from carina.models.bundle import METADATA, SHIPPED, WEIGHTS
from carina.models.damaged import check_usable
from carina.models.weights_digest import digest_file
from carina.operators.catalogue import DEFAULT, definition_file
from carina.operators.needed import TASKS, needed_tasks
from carina.pipeline.definition import load_definition

FileStates = tuple[tuple[str, int, int, int], ...]
"""Files with their sizes and times: that of their bytes, which may be set, and that of any change to them."""

READ_AGAIN_EVERY = timedelta(hours=1)
"""Bytes that a disk lost have the size and the times that they had."""

_PARTS = (METADATA, WEIGHTS, digest_file(WEIGHTS))
"""The files of a network by which it is told whether it can be used."""


@dataclass(frozen=True, kw_only=True)
class NeededBy:
    """What of the settings decides which networks are needed: of pipelines their names or files."""

    pipelines: tuple[str, ...]
    names: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    has_weights: bool


def network_troubles(settings: Settings, now: datetime) -> dict[str, str]:
    """What is wrong with each network that the pipelines of the sources need, by its key in the settings.

    Without sources, those of the default pipeline. Reading is done once for a state of the files, and every hour.
    """
    runtime = settings.runtime
    wanted = NeededBy(
        pipelines=tuple(sorted({one for source in settings.sources.values() for one in source.pipelines} or {DEFAULT})),
        names=tuple((task, getattr(settings.models, task)) for task in TASKS),
        folders=tuple(settings.models.folders),
        has_weights=runtime.kind is not RuntimeKind.TRITON and not runtime.endpoint,
    )
    return dict(_troubles(wanted, tuple(_seen(wanted)), int(now.timestamp() // READ_AGAIN_EVERY.total_seconds())))


@lru_cache(maxsize=8)
def _troubles(wanted: NeededBy, _: FileStates, __: int) -> dict[str, str]:
    needed = {task for pipeline in wanted.pipelines for task in _tasks(pipeline)}
    found: dict[str, str] = {}
    for task, name in wanted.names:
        try:
            if task in needed:
                check_usable(name, wanted.folders, has_weights=wanted.has_weights)
        except BadConfig as error:
            found[f"models.{task}"] = error.message
    return found


def _tasks(pipeline: str) -> tuple[str, ...]:
    """The tasks that a pipeline needs; what is wrong with its definition is told elsewhere."""
    with suppress(BadConfig):
        return needed_tasks(load_definition(definition_file(pipeline)))
    return ()


def _seen(wanted: NeededBy) -> Iterator[tuple[str, int, int, int]]:
    """The state of every file and folder that what is said depends on; of those that aren't there, none."""
    files = [str(place) for pipeline in wanted.pipelines for place in _definition(pipeline)]
    for folder in (*wanted.folders, str(SHIPPED)):
        files.append(folder)
        with suppress(OSError):
            files += [f"{one.path}/{part}" for one in os.scandir(folder) for part in _PARTS]
    for file in files:
        with suppress(OSError):
            state = Path(file).stat()
            yield file, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _definition(pipeline: str) -> Iterator[Path]:
    with suppress(BadConfig):
        yield definition_file(pipeline)
