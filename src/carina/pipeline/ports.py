"""Port types: how a value of each type is stored in a folder and read back.

Other rooms register their types; the engine itself knows whole numbers, text and the like as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from carina.errors import BadConfig
from carina.pipeline.operator import members, type_name

Saved = Callable[[object], tuple[Path, ...]]
"""The files a value is already stored in, the one to open first; nothing where it is not stored."""


@dataclass(frozen=True, kw_only=True)
class PortFormat:
    """How one type is stored.

    ``save(value, folder, saved)`` writes into an empty folder and returns the files, the one to open first;
    ``load(files)`` reads them back; ``recognise(files)`` says whether files hold this type, for ports of several types.
    """

    save: Callable[[Any, Path, Saved], Sequence[Path]]
    load: Callable[[Sequence[Path]], Any]
    recognise: Callable[[Sequence[Path]], bool]


FORMATS: dict[Any, PortFormat] = {}
"""Every known port type."""


def register(port_type: Any, port_format: PortFormat) -> None:
    """Make a type (or a union of types that are stored alike) a port type."""
    FORMATS[port_type] = port_format


def format_of(value: object) -> PortFormat:
    """How a value is stored, by its type or the nearest registered base.

    Raises:
        BadConfig: no such type is registered.
    """
    for base in type(value).__mro__:
        if base in FORMATS:
            return FORMATS[base]
    for registered, port_format in FORMATS.items():
        if type(value) in members(registered):
            return port_format
    raise BadConfig("ports.unknown", f"values of type {type(value).__name__} can't be stored: register the port type.")


def save(value: object, folder: Path, saved: Saved = lambda _: ()) -> tuple[Path, ...]:
    """Write a value into a folder, which is made; returns its files, the one to open first."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(format_of(value).save(value, folder, saved))


def load(port_type: Any, files: Sequence[Path]) -> Any:
    """Read a value of a port type back from its files.

    Raises:
        BadConfig: the type is not registered, or the files hold none of the types that the port takes.
    """
    if port_type in FORMATS:
        return FORMATS[port_type].load(files)
    known = [FORMATS[one] for one in members(port_type) if one in FORMATS]
    if len(known) == 1 == len(members(port_type)):
        return known[0].load(files)
    for port_format in known:
        if port_format.recognise(files):
            return port_format.load(files)
    names = ", ".join(path.name for path in files[:5]) or "nothing"
    raise BadConfig(
        "ports.unrecognised", f"expected {type_name(port_type)}, found {names}: give the folder of that output."
    )


def load_folder(port_type: Any, folder: Path) -> Any:
    """Read a value of a port type from every file below a folder.

    Raises:
        BadConfig: there is no such folder, or it does not hold the type.
    """
    if not folder.exists():
        raise BadConfig("ports.missing", f"{folder}: no such folder; expected one that holds {type_name(port_type)}.")
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    return load(port_type, files)


def _save_json(value: object, folder: Path, saved: Saved) -> Sequence[Path]:
    path = folder / "value.json"
    path.write_bytes(msgspec.json.encode(value))
    return [path]


def _load_json(files: Sequence[Path]) -> Any:
    return msgspec.json.decode(files[0].read_bytes())


def _is_json(files: Sequence[Path]) -> bool:
    return [path.name for path in files] == ["value.json"]


for _type in (bool, int, float, str, list, dict):
    register(_type, PortFormat(save=_save_json, load=_load_json, recognise=_is_json))
