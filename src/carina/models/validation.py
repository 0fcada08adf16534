"""What a bundle says of its own worth: what it learned from, and how it was tested."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured figure: ``value`` with its 95 % interval ``low`` to ``high``, or the range alone without a value.

    ``unit`` stands behind the number (``%``); without one the figure lies between 0 and 1.
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"figure {self.name!r} must have both low and high, or neither")
        if self.value is None and self.low is None:
            raise ValueError(f"figure {self.name!r} must have a value, or low and high")


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures measured on ``count`` (0: not stated) of ``data``: ``240 crops of lungs with synthetic disease``."""

    data: str
    figures: tuple[Figure, ...]
    count: int = 0


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The key ``validation`` of a bundle's ``carina`` object: how far its results can be trusted.

    Reports print it on their first page, so it is written in a reader's words.
    ``trained_on`` ends the sentence "It was trained on ...". ``calibration`` says how probabilities were calibrated,
    and is empty where they were not. ``limits`` are sentences.
    """

    trained_on: str
    tests: tuple[Measured, ...] = ()
    calibration: str = ""
    limits: tuple[str, ...] = ()
