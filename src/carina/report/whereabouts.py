"""Where lesions lie, in a sentence, for who would have to read a long list."""

from __future__ import annotations

from collections.abc import Sequence

from carina.measure.findings import RegionFindings
from carina.measure.thirds import THIRDS

LONG_LIST = 5
"""More lesions than this are summed up in a sentence."""

MOSTLY = 0.5
"""A third with at least this share of the lesion volume holds most of it."""

ONE_SIDE = 0.8
"""A lung with at least this share of the lesion volume has the lesions; with less, both have."""


def whereabouts(regions: Sequence[RegionFindings], lesion_count: int) -> str:
    """Which third and which lung hold most of the lesion volume; empty where a list of the lesions is short."""
    whole_ml = regions[0].lesion_ml if regions else 0.0
    if lesion_count <= LONG_LIST or not whole_ml:
        return ""
    thirds, lung = _shares(regions, THIRDS, whole_ml), _lung(regions, whole_ml)
    if not thirds:
        return f"Lesions lie {lung}."
    third = max(thirds, key=thirds.__getitem__)
    if thirds[third] < MOSTLY:
        return f"Spread over the thirds, {lung}."
    return f"Mostly {third} ({100 * thirds[third]:.0f} % of the lesion volume), {lung}."


def _lung(regions: Sequence[RegionFindings], whole_ml: float) -> str:
    """The lung that has nearly all, or both."""
    sides = _shares(regions, ("left lung", "right lung"), whole_ml)
    side = max(sides, key=sides.__getitem__, default="")
    if not side or sides[side] < ONE_SIDE:
        return "in both lungs"
    return f"in the {side} ({100 * sides[side]:.0f} %)"


def _shares(regions: Sequence[RegionFindings], names: Sequence[str], whole_ml: float) -> dict[str, float]:
    """Of the lesion volume the shares of regions whose name ends so; none where no region does."""
    found = {name: [one.lesion_ml for one in regions if one.region.endswith(name)] for name in names}
    return {name: sum(volumes) / whole_ml for name, volumes in found.items() if volumes}
