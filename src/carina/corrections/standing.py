"""What is said of a mask that a reader decided about: the one place where "corrected" is defined."""

from __future__ import annotations

from enum import StrEnum


class Decision(StrEnum):
    """What a reader decided; a corrected mask is accepted as it is after that."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CORRECTED = "corrected"


def standing(decision: Decision, correction: int) -> Decision:
    """As what a mask counts, in lists and in figures: one that a reader's finished correction holds is corrected.

    ``correction`` is the number of the finished correction that was decided about, 0 for the network's own mask. So a
    correction that was accepted is still corrected, and accepted is the network's own mask alone; what was rejected
    does not hold, whoever made it.
    """
    return Decision.CORRECTED if correction and decision is Decision.ACCEPTED else decision


def decision_words(decision: Decision, correction: int) -> str:
    """A decision as it is named: ``accepted`` of the network's own mask, ``correction accepted`` of a reader's."""
    return f"correction {decision}" if correction and decision is not Decision.CORRECTED else decision.value
