"""What a bundle says of what its network is shown, and of the first look that it names (`infer.first_look`)."""

from __future__ import annotations

import msgspec

SURE_MM = 50.0
"""The farthest from its surface that a first look may leave to the network."""

SURE_SCORE = 50.0
"""No score of a network lies beyond this, but by mistake."""

CLEAR_LUNG_HU = (-1000.0, -700.0)
"""Between these lies the clearest lung of a breath."""


class PinnedLook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bundle of a first look at the whole scan, beside this one or among those that ship, and its hash."""

    bundle: str
    sha256: str


class LungLook(PinnedLook, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A first look at the lungs: deeper than ``sure_mm`` inside its surface all is lung, farther outside nothing."""

    sure_mm: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sure_mm <= SURE_MM:
            raise ValueError(f"first_look sure_mm {self.sure_mm} must lie above 0, and {SURE_MM:g} at most")


class LesionLook(PinnedLook, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A first look at lesions: what it scores above ``sure`` (a difference of logits) is lesion.

    It takes nothing away: at a few millimetres it does not see a lesion of some ml, which the other network does.
    """

    sure: float = 0.0

    def __post_init__(self) -> None:
        if not abs(self.sure) <= SURE_SCORE:
            raise ValueError(f"first_look sure {self.sure} must lie between {-SURE_SCORE:g} and {SURE_SCORE:g}")


def check_clear(clear_hu: float | None) -> None:
    """Refuse a `clear_hu` that is no lung's.

    Raises:
        ValueError: it lies outside of `CLEAR_LUNG_HU`.
    """
    low, high = CLEAR_LUNG_HU
    if clear_hu is not None and not low <= clear_hu <= high:
        raise ValueError(f"clear_hu {clear_hu:g} must lie from {low:g} to {high:g}: that of clear, aired lung")
