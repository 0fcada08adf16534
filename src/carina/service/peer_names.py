"""Peers, pipelines and files as those are told of them who only read: by name, without where they are.

What the node stores and logs of a destination, or of another place, names its address, which whoever operates needs to
mend it. It is left out where a message is shown, whatever said it: an address of the settings, and what stands in
brackets as one, since the settings may have changed after something was said. So is the folder of whatever the settings
name by its path, or the node keeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from carina.config import DicomDestination, DicomwebDestination, FolderDestination, FolderSource, Settings
from carina.deliver.association import address
from carina.service.access.caller import Caller
from carina.service.pipelines import pipeline_name

MESSAGES = frozenset({"error", "first_warning", "note", "reason", "said", "troubles", "warnings"})
"""Fields in which answers and pages have messages."""

_OTHERS_WORDS = frozenset({"decisions"})
"""Fields in which people wrote something, which is shown as they wrote it."""

_IN_BRACKETS = re.compile(r" \((?:[^()]{1,80}@[^()\s]+:\d+|https?://[^()\s]+|/[^()]+)\)")

_DEFINITION = re.compile(r"(?<![\w.:/-])/(?:[^/\s]+/)+([^/\s]+)\.ya?ml\b")
"""A pipeline that jobs were run by, and the settings need not name any more."""

_RUN = re.compile(r"runs/(\d+)")

_Value = TypeVar("_Value")


def message_without_addresses(said: str, settings: Settings) -> str:
    """A message with the names of peers, pipelines and files alone."""
    if not said:
        return said
    left = _without_folder(_IN_BRACKETS.sub("", said), settings.node.folder)
    known = sorted(_addresses(settings), key=lambda one: len(one[0]), reverse=True)
    for where, name in known:
        left = re.sub(rf"(?<![\w.@-]){re.escape(where)}(?![\w-]|\.\w)", lambda _, name=name: name, left)  # type: ignore[misc]
    return _DEFINITION.sub(r"\1", left)


def _without_folder(said: str, folder: str) -> str:
    """A message in which what the node keeps is called by its last name, and a run by its number."""
    for place in dict.fromkeys(map(str, (Path(folder).resolve(), Path(folder).absolute(), Path(folder)))):
        below = re.compile(rf"(?<![\w.@/-]){re.escape(place)}((?:/[^\s/:,;'\"]+)+)")
        said = below.sub(lambda found: _below_folder(found[1][1:]), said)
        if PurePath(place).is_absolute():
            said = said.replace(place, "the node's folder")
    return said


def _below_folder(path: str) -> str:
    run = _RUN.fullmatch(path)
    return f"run {run[1]}" if run else PurePath(path).name


def _addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each address of the settings, as messages may have it, with the name of who is there."""
    for name, peer in (*settings.destinations.items(), *settings.sources.items()):
        match peer:
            case DicomDestination():
                hosts = {peer.host, peer.tls_name, f"{peer.host}:{peer.port}", address(peer)}
            case DicomwebDestination():
                parts = urlsplit(peer.url)
                hosts = {peer.url, peer.url.rstrip("/"), parts.netloc, parts.hostname or ""}
            case FolderDestination() | FolderSource():
                hosts = {peer.path, peer.path.rstrip("/")}
            case _:
                hosts = set()
        yield from ((where, name) for where in sorted(hosts - {"", name}))
    yield from _files(settings)


def _files(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each file and folder that settings name by its path, with its name."""
    named = {one: pipeline_name(one) for source in settings.sources.values() for one in source.pipelines}
    yield from ((path, name) for path, name in named.items() if path != name)
    yield from ((path, PurePath(path).name) for path in _paths(settings) if path not in (settings.node.folder, *named))


def _paths(value: Any) -> Iterator[str]:
    """Each path in settings that says where something is on the machine."""
    if isinstance(value, str):
        if value.startswith("/") and len(PurePath(value).parts) > 2:
            yield value
        return
    if isinstance(value, msgspec.Struct):
        value = [getattr(value, name) for name in value.__struct_fields__]
    elif isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | frozenset):
        for one in value:
            yield from _paths(one)


def message_told(said: str, caller: Caller, settings: Settings, project: str) -> str:
    """A message about something in a project as a caller is told it."""
    return said if caller.may_operate(project) else message_without_addresses(said, settings)


def message_told_to(caller: Caller, settings: Settings) -> Callable[[str], str]:
    """How a caller is told of what is of no project alone: where things are, if they operate in all that they see."""
    return lambda said: said if caller.operates_all_seen else message_without_addresses(said, settings)


def told_to(answer: _Value, caller: Caller, settings: Settings, project: str | None = None) -> _Value:
    """An answer for those who only read what it is of: its messages have no address, and its pipelines no folder.

    What says of no project, and is not of ``project`` either, they have to operate wherever they see.
    """
    hide: Callable[[str], str] = lambda said: message_without_addresses(said, settings)  # noqa: E731
    shown: _Value = _Telling(caller, hide, project).shown(answer)
    return shown


class _Telling:
    """Goes through an answer and the structures in it."""

    def __init__(self, caller: Caller, hide: Callable[[str], str], project: str | None) -> None:
        self._caller, self._hide, self._project = caller, hide, project

    def shown(self, answer: Any) -> Any:
        """It as the caller is shown it."""
        if isinstance(answer, tuple):
            return tuple(self.shown(one) for one in answer)
        if not isinstance(answer, msgspec.Struct) or self._is_operated(answer):
            return answer
        names = [name for name in answer.__struct_fields__ if name not in _OTHERS_WORDS]
        return msgspec.structs.replace(answer, **{name: self._field(name, getattr(answer, name)) for name in names})

    def _field(self, name: str, value: Any) -> Any:
        if name == "pipeline" and isinstance(value, str):
            return pipeline_name(value)
        if name == "path" and isinstance(value, str):
            return PurePath(value).name
        if name not in MESSAGES:
            return self.shown(value)
        if isinstance(value, tuple):
            return tuple(self._field(name, one) for one in value)
        return self._hide(value) if isinstance(value, str) else self.shown(value)

    def _is_operated(self, answer: msgspec.Struct) -> bool:
        of_itself = getattr(answer, "project", None) or getattr(getattr(answer, "job", None), "project", None)
        project = of_itself or self._project
        return self._caller.operates_all_seen if project is None else self._caller.may_operate(project)
