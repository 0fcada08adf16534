"""Carina, an open chest-CT AI node: for research use only, not for diagnosis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carina.api import Run, find_series, read_series, run
    from carina.volume import Grid, Mask, Volume

__version__ = "0.1.0"

RESEARCH_ONLY = "For research use only. Not for diagnosis."

_HOMES = {
    "Grid": "carina.volume",
    "Mask": "carina.volume",
    "Run": "carina.api",
    "Volume": "carina.volume",
    "find_series": "carina.api",
    "read_series": "carina.api",
    "run": "carina.api",
}

__all__ = ["RESEARCH_ONLY", "Grid", "Mask", "Run", "Volume", "find_series", "read_series", "run"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``carina --help`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'carina' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
