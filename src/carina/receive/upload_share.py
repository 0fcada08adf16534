"""What one project's uploads may take of a node's room, beside those of others."""

from __future__ import annotations

from collections.abc import Mapping

KEPT_FOR_ALL = 0.5
"""The part of the whole that is kept for projects, in equal shares; whoever comes first has the rest."""


def kept_share(whole: float, projects: int) -> float:
    """What each of a number of projects can have whatever the others do; all of it where there is one."""
    return whole if projects <= 1 else KEPT_FOR_ALL * whole / projects


def most_for_one(whole: float, projects: int) -> float:
    """What one project can have at most, where no other has taken anything; what is larger never fits."""
    return room_for("", {}, whole, projects)


def room_for(project: str, taken: Mapping[str, float], whole: float, projects: int) -> float:
    """How much more a project may have, where each one has taken something; nobody reaches into another's share."""
    share = kept_share(whole, projects)
    others = [max(share, one) for name, one in taken.items() if name != project]
    silent = max(0, projects - 1 - len(others))
    return whole - sum(others) - silent * share - taken.get(project, 0)
