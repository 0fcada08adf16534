"""What a bundle of lungs may add to its network: where HU settle the border."""

from __future__ import annotations

import msgspec

REACH_MM = 10.0
"""The farthest that a border rule may reach."""


class Border(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The lung ends where HU pass ``hu``, within ``reach_mm`` of where the network lets it end (`infer.border`).

    By half a slice of the network grid its border is uncertain. Half-way between lung and soft tissue lies at -400 HU;
    experts draw the outline a little outside of it (research/LOG.md, 23).
    """

    hu: float = -400.0
    reach_mm: float = 2.5

    def __post_init__(self) -> None:
        if not 0 < self.reach_mm <= REACH_MM:
            raise ValueError(f"border reach_mm {self.reach_mm} must lie above 0, and {REACH_MM:g} at most")
