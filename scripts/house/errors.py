"""Errors: caught broadly in three kinds of places only, and tested by their words."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

from house.sources import Source

MATCHED = 0.95
"""This share of the tests that expect an error compares its message."""

BROAD = {"Exception", "BaseException"}


def broad_excepts(sources: Sequence[Source], allowed: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each ``except`` that takes every error where the table does not say why."""
    used = set()
    for source in sources:
        for node in source.nodes:
            if not isinstance(node, ast.ExceptHandler) or not _is_broad(node):
                continue
            used.add(source.path)
            if source.path not in allowed:
                yield (
                    f"{source.path}:{node.lineno}: catches every error; only the network edge, the run and the command "
                    "line do, name the errors here"
                )
    yield from (f"broad-excepts allows {row!r}, which nothing needs; strike it" for row in sorted(set(allowed) - used))


def _is_broad(node: ast.ExceptHandler) -> bool:
    kinds = [] if node.type is None else [part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)]
    return node.type is None or bool(BROAD & set(kinds))


def wordless_tests(sources: Sequence[Source]) -> Iterator[str]:
    """The tests that expect an error without its words, where they are too many."""
    found = [(source.path, node) for source in sources for node in _expectations(source)]
    wordless = [f"{path}:{node.lineno}" for path, node in found if not any(key.arg == "match" for key in node.keywords)]
    if len(wordless) > (1 - MATCHED) * len(found):
        yield (
            f"{len(wordless)} of {len(found)} tests expect an error and not its words (match=...); at most "
            f"{1 - MATCHED:.0%} may: {', '.join(wordless)}"
        )


def _expectations(source: Source) -> Iterator[ast.Call]:
    """Each ``pytest.raises(...)``."""
    for node in source.nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "raises":
            yield node
