"""How deep and how far values from outside may reach: what reads them later does so by recursion, or walks them all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

DEEPEST = 64
"""Lists and tables inside each other; what Carina, MONAI and DICOMweb servers write has about ten."""

MOST_VALUES = 100_000
"""Values of one file, one that is named by an alias each time; a large configuration has a thousand."""

TOO_DEEP = f"it is nested more than {DEEPEST} deep"


def check_extent(found: Any) -> None:
    """Refuse plain values that YAML or TOML made, with aliases that stand for endlessly many too.

    Raises:
        ValueError: they are nested more than ``DEEPEST`` deep, or more than ``MOST_VALUES``.
    """
    left, waiting = MOST_VALUES, [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        inner: Collection[Any] = value.values() if isinstance(value, Mapping) else ()
        if isinstance(value, list | tuple | set):
            inner = value
        left -= len(inner)
        if left < 0:
            raise ValueError(f"it stands for more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
        waiting.extend((one, depth + 1) for one in inner)
