"""Who imports whom: no circle of files, and the package's own modules at the top, but for a list with reasons."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import grimp

from house.sources import Source

FACE = "carina"
"""The package's own face hands names on; what imports a constant from it is no circle."""


def circles(root: Path) -> Iterator[str]:
    """One sentence for each circle of modules that import each other, imports for types alone counted too."""
    sys.path.insert(0, str(root / "src"))
    graph = grimp.build_graph(FACE, cache_dir=None)
    edges = {
        module: {other for other in graph.find_modules_directly_imported_by(module) if other != FACE}
        for module in graph.modules
        if module != FACE
    }
    for circle in _strong(edges):
        ties = [f"{module} -> {other}" for module in circle for other in sorted(edges[module] & set(circle))]
        yield f"modules import each other in a circle: {', '.join(ties)}; move what they share below both"


def _strong(edges: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The sets of modules that reach each other, those of one module apart."""
    reach = {module: _reached(module, edges) for module in edges}
    left = set(edges)
    for module in sorted(edges):
        circle = sorted(other for other in reach[module] if module in reach[other]) if module in left else []
        left -= set(circle)
        if len(circle) > 1:
            yield circle


def _reached(module: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        for other in edges[waiting.pop()]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def late_imports(sources: Sequence[Source], allowed: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each file that imports the package's own modules inside a function and is not listed."""
    late = {source.path: line for source in sources if (line := _first_late(source))}
    for path, line in late.items():
        if path not in allowed:
            yield (
                f"{path}:{line}: imports {FACE}'s own modules inside a function; import them at the top, or list the "
                "file with its reason"
            )
    unused = allowed.keys() - late.keys()
    yield from (f"late-imports allows {row!r}, which nothing needs; strike it" for row in sorted(unused))


def _first_late(source: Source) -> int:
    """The line of the first such import; 0 where there is none."""
    lines = [
        node.lineno
        for function in source.functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and _is_own(node)
    ]
    return min(lines, default=0)


def _is_own(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] == FACE
    return isinstance(node, ast.Import) and any(alias.name.split(".")[0] == FACE for alias in node.names)
