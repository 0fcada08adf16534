"""Which runs readers have looked at, as the page of agreement is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunsLookedAt:
    """Runs that may have a reader's decision, by the address of their pages, without a slash at the end.

    ``count`` says how many there are: more than ``runs`` where only the latest are taken into account.
    """

    runs: Mapping[str, Path]
    count: int
