"""What is asked before a button does what nothing takes back: with it comes what will be done, and a way to leave it.

It is asked on a page of its own, which needs no script, and on which the keyboard stands on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass

from carina.config import AnySource
from carina.database import read_only
from carina.receive.store import ArrivalState
from carina.service.arrivals import HELD_BACK, RELEASED_RESULTS, Arrival, find_arrival
from carina.service.node import RunningNode

_STAYS = "It does not go back to waiting: its jobs can be canceled, and what was sent stays where it is."


@dataclass(frozen=True, kw_only=True)
class Question:
    """``heading`` asks, ``lines`` say what will be done; ``does`` is the button for it, ``leaves`` the way back."""

    heading: str
    lines: tuple[str, ...]
    does: str
    leaves: str


def release_question(node: RunningNode, arrival_id: int, source: str) -> Question | None:
    """What is asked before a series is released as a source's; None where it can't be: the release itself says why."""
    with read_only(node.engine) as connection:
        held = find_arrival(connection, arrival_id)
    if held is None or held.state not in (*HELD_BACK, ArrivalState.KEPT):
        return None
    name = source or held.source
    if name not in node.settings.sources:
        return None
    return Question(
        heading=f"Release arrival {arrival_id}?",
        lines=(*_waits(held), _will_be_done(name, node.settings.sources[name])),
        does=f"Release as {name}",
        leaves="Leave it as it is",
    )


def _waits(held: Arrival) -> tuple[str, ...]:
    number = f"{held.instances} instance{'' if held.instances == 1 else 's'}"
    came = f"Series {held.series_uid}: {number} from {held.sender}"
    if held.state is ArrivalState.KEPT:
        return (f"{came}.", RELEASED_RESULTS)
    return (f"{came}, held back for this reason:", held.reason.replace(f"series {held.series_uid}: ", ""))


def _will_be_done(name: str, source: AnySource) -> str:
    pipelines = f"pipeline{'' if len(source.pipelines) == 1 else 's'} {', '.join(source.pipelines)}"
    sent = f"what comes of it is sent to {', '.join(source.destinations)}" if source.destinations else "nothing is sent"
    return f"Released, it is run as what comes from source {name}, by {pipelines}, and {sent}. {_STAYS}"
