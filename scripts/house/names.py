"""A public name is defined once in the package."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterator, Mapping, Sequence

from house.sources import Source


def shared_names(sources: Sequence[Source], allowed: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each public name of a module that another module defines too.

    ``allowed`` maps ``pattern of paths:name`` to the reason; a row that allows nothing is told as well.
    """
    places: dict[str, list[str]] = {}
    used = set()
    for source in sources:
        for name in sorted(set(_public(source.tree))):
            rows = {row for row in allowed if fnmatch.fnmatchcase(f"{source.path}:{name}", row)}
            used |= rows
            if not rows:
                places.setdefault(name, []).append(source.path)
    for name, paths in sorted(places.items()):
        if len(paths) > 1:
            yield f"{name} is defined in {', '.join(paths)}; a name means one thing, rename or share it"
    yield from (f"shared-names allows {row!r}, which nothing needs; strike it" for row in sorted(set(allowed) - used))


def _public(tree: ast.Module) -> Iterator[str]:
    """The names that a module defines at its top level, those of imports apart."""
    for node in tree.body:
        for name in _defined(node):
            if not name.startswith("_"):
                yield name


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
