"""A reader's decision about a mask, and what is said of it: the one place where "corrected" is defined."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from carina.corrections.hands import by_whom


class Decision(StrEnum):
    """What a reader decided; a corrected mask is accepted as it is after that."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CORRECTED = "corrected"


class ReaderDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader decided about a mask, ``at`` in UTC; ``reason`` is that of a rejection, where one was given.

    ``correction`` is the number of the finished correction that it is about, 0 for the network's own mask. Of a
    corrected mask ``painters`` are those whose strokes it holds, ``finisher`` is who finished it.
    """

    decision: Decision
    correction: int = 0
    reader: str
    at: datetime
    reason: str = ""
    painters: tuple[str, ...] = ()
    finisher: str = ""

    @property
    def by(self) -> str:
        """Who decided about whose mask, in words."""
        return by_whom(self.reader, self.painters, self.finisher)

    @property
    def standing(self) -> Decision:
        """As what the mask counts, in lists and in figures: one that a finished correction holds is corrected.

        So a correction that was accepted is still corrected, and accepted is the network's own mask alone; what was
        rejected does not hold, whoever made it.
        """
        is_corrected = self.correction and self.decision is Decision.ACCEPTED
        return Decision.CORRECTED if is_corrected else self.decision

    @property
    def words(self) -> str:
        """As it is named: ``accepted`` of the network's own mask, ``correction accepted`` of a reader's."""
        is_of_correction = self.correction and self.decision is not Decision.CORRECTED
        return f"correction {self.decision}" if is_of_correction else self.decision.value


def decision_fields(said: ReaderDecision) -> dict[str, Any]:
    """The fields of the decision alone, for another value that holds it."""
    return {name: getattr(said, name) for name in ReaderDecision.__struct_fields__}
