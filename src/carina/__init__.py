"""Carina, an open chest-CT AI node: for research use only, not for diagnosis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carina.api import Cohort, Run, find_series, open_run, read_series, run, run_many
    from carina.volume import Grid, Mask, Volume

__version__ = "0.2.0"

RESEARCH_ONLY = "For research use only. Not for diagnosis."

_HOMES = {
    "Cohort": "carina.api",
    "Grid": "carina.volume",
    "Mask": "carina.volume",
    "Run": "carina.api",
    "Volume": "carina.volume",
    "find_series": "carina.api",
    "open_run": "carina.api",
    "read_series": "carina.api",
    "run": "carina.api",
    "run_many": "carina.api",
}

__all__ = [
    "RESEARCH_ONLY",
    "Cohort",
    "Grid",
    "Mask",
    "Run",
    "Volume",
    "find_series",
    "open_run",
    "read_series",
    "run",
    "run_many",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``carina --help`` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'carina' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
