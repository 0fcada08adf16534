"""The pipeline definitions that ship with Carina."""

from __future__ import annotations

from pathlib import Path

from carina.errors import BadConfig

FOLDER = Path(__file__).parent / "definitions"


def known_definitions() -> dict[str, Path]:
    """The definitions' files by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_definition(name: str) -> Path:
    """The file of a definition that ships.

    Raises:
        BadConfig: there is none of that name; the message lists the known ones.
    """
    known = known_definitions()
    if name not in known:
        raise BadConfig("definition.unknown", f"no definition is called '{name}'; known: {', '.join(known)}.")
    return known[name]
