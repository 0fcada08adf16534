"""How a job that is asked for by path is run; without what judges a series, which the server doesn't load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from carina.config import Priority
from carina.web_settings import DEFAULT_PROJECT


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a job that is asked for by path is run: its pipeline, when, where its objects go, whose it is."""

    pipeline: str = "default"
    priority: Priority = Priority.NORMAL
    destinations: Sequence[str] = ()
    project: str = DEFAULT_PROJECT


AS_USUAL = Terms()
"""What counts where nothing is said."""
