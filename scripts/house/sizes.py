"""How large and how tangled a module and a function may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from radon.complexity import cc_visit_ast
from radon.visitors import Class

from house.sources import Source

MODULE_LINES = 400
VERSION_LINES = 250
"""Of the changelog: what a user of the version before will notice, not how it came about."""
COMPLEXITY = 10
"""As radon counts it: a boolean operator is a branch."""
FUNCTION_LINES, SHARE = 25, 0.95
"""This share of the package's functions has at most so many lines."""


def long_modules(sources: Sequence[Source]) -> Iterator[str]:
    """One sentence for each module that has too many lines."""
    for source in sources:
        count = len(source.text.splitlines())
        if count > MODULE_LINES:
            yield f"{source.path}: {count} lines; a module has at most {MODULE_LINES}, split it by idea"


def long_versions(changelog: Path) -> Iterator[str]:
    """One sentence for each version in the changelog with too many lines, or with a heading that stands there twice."""
    if not changelog.is_file():
        yield f"{changelog.name}: it is not there; nothing was checked"
        return
    for part in changelog.read_text(encoding="utf-8").split("\n## ")[1:]:
        lines = part.splitlines()
        told = f"{changelog.name}: version {lines[0]}"
        if len(lines) > VERSION_LINES:
            yield (
                f"{told}: {len(lines)} lines; at most {VERSION_LINES}, what changed since the version before; take out "
                "what a merge brought back"
            )
        headings = Counter(line for line in lines if line.startswith("### "))
        yield from (f"{told}: {heading!r} stands there twice" for heading, count in headings.items() if count > 1)


def tangled(sources: Sequence[Source]) -> Iterator[str]:
    """One sentence for each function, and each class as a whole, with too many branches."""
    for source in sources:
        for block in cc_visit_ast(source.tree):
            if block.complexity <= COMPLEXITY:
                continue
            what = "class" if isinstance(block, Class) else "function"
            yield (
                f"{source.path}:{block.lineno}: {what} {block.name} has a complexity of {block.complexity} with "
                f"boolean operators counted; at most {COMPLEXITY}, give its parts names"
            )


def long_functions(sources: Sequence[Source]) -> Iterator[str]:
    """The longest functions, where too many are long."""
    lengths = sorted(
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{source.path}:{node.lineno} {node.name}")
        for source in sources
        for node in source.functions
    )
    over = [(length, name) for length, name in lengths if length > FUNCTION_LINES]
    if len(over) > len(lengths) * (1 - SHARE):
        longest = ", ".join(f"{name} ({length})" for length, name in over[::-1][:20])
        yield (
            f"{len(over)} of {len(lengths)} functions have more than {FUNCTION_LINES} lines; "
            f"{1 - SHARE:.0%} may. The longest: {longest}"
        )
