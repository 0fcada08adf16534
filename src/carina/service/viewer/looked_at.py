"""Which runs readers have looked at, as the page of agreement is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunsLookedAt:
    """Runs that may have a reader's decision, by the address of their pages, without a slash at the end.

    ``is_cut`` says that there are more, of which only the latest are taken into account.
    """

    runs: Mapping[str, Path]
    is_cut: bool = False
