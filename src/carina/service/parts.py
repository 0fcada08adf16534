"""Which parts a node has, in the order in which they start: what sends and runs first, what receives last."""

from __future__ import annotations

from collections.abc import Iterator

from carina.service.loops import Part
from carina.service.node import RunningNode


def parts_of(node: RunningNode) -> Iterator[Part]:
    """The parts that a node's settings ask for, not yet started."""
    yield from ()
