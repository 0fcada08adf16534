"""Python files as the gates see them: text, syntax tree, and the tables that say what is allowed, with reasons."""

from __future__ import annotations

import ast
import io
import tokenize
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
TABLE = "scripts/house.toml"


@dataclass(frozen=True)
class Source:
    """One file: its path below the project's root, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree: walked once for all gates."""
        return tuple(ast.walk(self.tree))

    @property
    def functions(self) -> Iterator[Function]:
        """Every function and method, those inside others too."""
        return (node for node in self.nodes if isinstance(node, Function))

    @cached_property
    def code_lines(self) -> int:
        """Lines that hold code: none that are blank, a comment, or a bare string such as a docstring."""
        strings = {
            line
            for node in self.nodes
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        }
        kept = {
            line
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline)
            if token.type not in _NO_CODE
            for line in range(token.start[0], token.end[0] + 1)
        }
        return len(kept - strings)


_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def read_sources(root: Path, folders: Iterable[str]) -> list[Source]:
    """Every Python file below the folders.

    Raises:
        ValueError: a folder is not there, or holds no Python file; a gate that reads nothing finds nothing.
    """
    found = []
    for folder in folders:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            raise ValueError(f"no Python file below {folder}; nothing was checked")
        found += [Source(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in files]
    if not found:
        raise ValueError("no folder was named; nothing was checked")
    return found


def allowed(root: Path) -> Mapping[str, Mapping[str, str]]:
    """The tables of what is allowed and why; none at all where the project has no such file."""
    file = root / TABLE
    return tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
