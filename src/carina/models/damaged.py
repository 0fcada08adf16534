"""Folders beside bundles that are none, or damaged ones: nobody learns of them by a name that works."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from carina.errors import BadConfig
from carina.models.bundle import load_bundle


def damaged_bundles(folders: Iterable[Path | str]) -> dict[str, str]:
    """What is wrong with each folder below ``folders`` that is no bundle, or a damaged one, by its name."""
    found: dict[str, str] = {}
    for place in (one for folder in folders for one in sorted(Path(folder).glob("[!.]*")) if one.is_dir()):
        try:
            load_bundle(place)
        except BadConfig as error:
            found.setdefault(place.name, error.message)
    return found
