"""What a bundle says of its own worth: what it learned from, and how it was tested."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class SeenBefore(StrEnum):
    """What had touched the cases of a test before it: nothing, choices alone, or training."""

    NEVER = "never"
    CHOICES = "choices"
    TRAINING = "training"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured figure: ``value`` with its 95 % interval ``low`` to ``high``, or the range alone without a value.

    ``unit`` stands behind the number (``%``); without one the figure lies between 0 and 1. ``metrics`` are the keys of
    the bundle's ``eval_metrics`` that it was taken from: the value's first; ``low`` and ``high`` are the least and the
    greatest of them.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    metrics: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"figure {self.name!r} must have both low and high, or neither")
        if self.value is None and self.low is None:
            raise ValueError(f"figure {self.name!r} must have a value, or low and high")


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures measured on ``count`` (0: not stated) of ``data``: ``240 crops of lungs with synthetic disease``.

    ``cases`` names whose scans these were, ``seen`` what had touched them before; None: it is not stated.
    """

    data: str
    figures: tuple[Figure, ...]
    count: int = 0
    cases: tuple[str, ...] = ()
    seen: SeenBefore | None = None

    def __post_init__(self) -> None:
        if self.seen and not self.cases:
            raise ValueError(f"{self.data!r} are seen {self.seen.value!r}, but cases does not name them")


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The key ``validation`` of a bundle's ``carina`` object: how far its results can be trusted.

    Reports print it on their first page, so it is written in a reader's words.
    ``trained_on`` ends the sentence "It was trained on ...". ``calibration`` says how probabilities were calibrated,
    and is empty where they were not. ``limits`` are sentences. ``trained_cases`` names the scans of patients that the
    weights were trained on, in whatever stage.
    """

    trained_on: str
    tests: tuple[Measured, ...] = ()
    calibration: str = ""
    limits: tuple[str, ...] = ()
    trained_cases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for test in (test for test in self.tests if test.seen in (SeenBefore.NEVER, SeenBefore.CHOICES)):
            if both := sorted(set(test.cases) & set(self.trained_cases)):
                raise ValueError(f"{test.data!r} can't be unseen: trained_cases names {', '.join(both)} too")
