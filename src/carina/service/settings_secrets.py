"""Whether a settings file shows its secrets to other users of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from carina.database.address import has_password
from carina.jobs.places import is_private
from carina.toml import read_toml

SECRET_KEYS = frozenset({"password", "token", "secret", "client_secret", "key"})
"""Keys of a settings file whose values are kept from others; ``key`` of a table for TLS is a file's path."""


def open_secrets(file: Path | None) -> Iterator[str]:
    """A line where a settings file holds a secret and others than its user can read it."""
    if file is None or is_private(file):
        return
    found = [".".join(key) for key in _secrets(read_toml(file, "config").table, ())]
    if found:
        words = f"holds a secret ({', '.join(found)}) and can be read by other users of this machine"
        yield f"{file}: {words}: chmod 600 {file}"


def _secrets(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        key = (*above, name)
        if isinstance(value, Mapping):
            yield from _secrets(value, key)
        elif value and _is_secret(key, str(value)):
            yield key


def _is_secret(key: tuple[str, ...], value: str) -> bool:
    if key == ("node", "database"):
        return has_password(value)
    return key[-1] in SECRET_KEYS and "tls" not in key
