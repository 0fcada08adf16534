"""Operators of other packages, by entry point: installing the package is all that is needed.

[project.entry-points."carina.operators"]
emphysema = "carina_emphysema:OPERATOR"
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from carina.errors import said_by
from carina.pipeline.operator import Operator
from carina.pipeline.table import OperatorTable, mistake_of

GROUP = "carina.operators"
"""The entry point group; each entry point names an ``Operator``."""


def with_installed(table: OperatorTable, found: Iterable[EntryPoint] | None = None) -> OperatorTable:
    """A table and the operators of installed packages.

    A package whose operator can't be loaded or used is refused in a sentence that names it, and disturbs no other.
    """
    operators, refused = [], []
    for entry in entry_points(group=GROUP) if found is None else found:
        one = _load(entry)
        if isinstance(one, Operator):
            operators.append(one)
        else:
            refused.append(one)
    joined = table.with_usable(*operators)
    return replace(joined, refused=(*joined.refused, *refused))


def _load(entry: EntryPoint) -> Operator | str:
    """The operator of an entry point, or the sentence that says why there is none."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.module
    try:
        operator = entry.load()
        if not isinstance(operator, Operator):
            return f"{package}: {entry.value} is a {type(operator).__name__}; expected a carina.pipeline.Operator."
        operator = replace(operator, package=package, entry=entry.value)
        mistake_of(operator)  # reads the annotations, which is the package's code as well
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of strangers may raise anything, and must not matter
        reason = f"{type(error).__name__}: {said_by(error)}"
        return f"{package}: its operator {entry.value} can't be loaded ({reason})."
    return operator
