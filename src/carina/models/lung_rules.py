"""What a bundle of lungs may add to its network: where HU settle the border, and which components are kept."""

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


class Components(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keep the largest component, and up to ``keep`` in all that have more than ``min_voxels`` and ``min_share`` of it.

    Voxels are those of the network grid; ``min_share`` is a share of the largest component, 0 to 1.
    """

    keep: int = 2
    min_voxels: int = 5000
    min_share: float = 0.1
