"""The pipeline definitions that ship with Carina."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from carina.errors import BadConfig

DEFAULT = "default"

FOLDER = Path(__file__).parent / "definitions"


@cache
def known_definitions() -> Mapping[str, Path]:
    """The definitions' files by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stem)}


def find_definition(name: str) -> Path:
    """The file of a definition that ships.

    Raises:
        BadConfig: there is none of that name; the message lists the known ones.
    """
    known = known_definitions()
    if name not in known:
        raise BadConfig("definition.unknown", f"no definition is called '{name}'; known: {', '.join(known)}.")
    return known[name]


def definition_file(given: Path | str | None) -> Path:
    """A definition's file: a path, or the name of one that ships; without either, the default one.

    Raises:
        BadConfig: it is neither a file nor a name that is known; the message lists the names.
    """
    if given is None:
        return find_definition(DEFAULT)
    is_name = Path(given).name == str(given) and not Path(given).suffix
    try:
        is_file = not is_name or Path(given).exists()
    except OSError:  # too long, or not to be looked at: reading it says so
        is_file = True
    return Path(given) if is_file else find_definition(str(given))
