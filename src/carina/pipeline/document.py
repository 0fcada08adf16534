"""YAML with line numbers: reads nodes, collects every mistake, fills in ``${{ parameter }}`` placeholders.

The grammar is that of the Clara Deploy pipeline definition language, api-version 0.4.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
PLACEHOLDER = re.compile(r"\$\{\{\s*([A-Za-z0-9_-]+)\s*\}\}")


class Problem(NamedTuple):
    """One mistake in a definition: the 1-based line and a sentence."""

    line: int
    message: str


def line_of(node: Node) -> int:
    """The 1-based line a node starts on."""
    return int(node.start_mark.line) + 1


def compose(text: str, problems: list[Problem]) -> Node | None:
    """The root node of a YAML text; None, and a problem, where it is no YAML."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.append(Problem(mark.line + 1 if mark else 1, f"no valid YAML: {error.problem or error.context}"))
        return None
    except RecursionError:
        problems.append(
            Problem(line=1, message="brackets or blocks are nested too deeply; a definition needs about ten")
        )
        return None
    except yaml.YAMLError as error:
        problems.append(Problem(1, f"no valid YAML: {error}"))
        return None
    if root is None:
        problems.append(Problem(1, "the definition is empty"))
    return root


MOST_NODES = 100_000
"""Nodes that are read of one definition, one that is named by an alias each time: a large definition has a thousand."""


class TooMuch(Exception):
    """Ends the reading of a definition whose aliases stand for more nodes than any definition has."""


class Reader:
    """Turns nodes into plain values; a mistake becomes a problem and an empty value, so that the rest is read."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.parameters: Mapping[str, str] = {}
        self._left = MOST_NODES

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooMuch

    def problem(self, node: Node, message: str) -> None:
        """Note a mistake at a node."""
        self.problems.append(Problem(line_of(node), message))

    def mapping(
        self, node: Node, what: str, known: Collection[str] | None = None, required: Collection[str] = ()
    ) -> dict[str, Node]:
        """The entries of a mapping; keys outside ``known`` (None: any key) and missing ones are problems."""
        self._count()
        if not isinstance(node, MappingNode):
            self.problem(node, f"{what} must be a mapping of keys to values")
            return {}
        entries: dict[str, Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key in entries:
                self.problem(key_node, f"key '{key}' appears twice in {what}")
            elif known is not None and key not in known:
                self.problem(key_node, f"unknown key '{key}' in {what}; known: {', '.join(known)}")
            else:
                entries[key] = value
        for key in required:
            if key not in entries:
                self.problem(node, f"{what} lacks the key '{key}'")
        return entries

    def sequence(self, node: Node | None, what: str) -> list[Node]:
        """The items of a list; nothing where it is absent."""
        if node is None:
            return []
        if not isinstance(node, SequenceNode):
            self.problem(node, f"{what} must be a list")
            return []
        return list(node.value)

    def text(self, node: Node | None, what: str, default: str = "") -> str:
        """A scalar as text, with placeholders filled in."""
        if node is None:
            return default
        self._count()
        if not isinstance(node, ScalarNode):
            self.problem(node, f"{what} must be one value")
            return default
        return PLACEHOLDER.sub(lambda match: self._parameter(node, match), str(node.value))

    def _parameter(self, node: Node, match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in self.parameters:
            known = ", ".join(self.parameters) or "none"
            self.problem(node, f"placeholder '{name}' is no parameter of this definition; known: {known}")
        return self.parameters.get(name, "")

    def name(self, node: Node | None, what: str) -> str:
        """A name: letters, digits, hyphen and underscore, 1 to 255 of them."""
        text = self.text(node, what)
        if node is not None and not NAME.fullmatch(text):
            self.problem(node, f"{what} is '{text}'; a name has 1 to 255 letters, digits, '-' or '_'")
        return text

    def path(self, node: Node | None, what: str) -> str:
        """A path inside a container, which starts with a slash."""
        text = self.text(node, what)
        if node is not None and not text.startswith("/"):
            self.problem(node, f"{what} is '{text}'; a path starts with '/'")
        return text.rstrip("/") or text

    def number(self, node: Node | None, what: str, low: int, high: int) -> int | None:
        """A whole number in ``low`` to ``high``; None where it is absent or wrong."""
        if node is None:
            return None
        text = self.text(node, what)
        if not text.isdecimal() or len(text) > len(str(high)) or not low <= int(text) <= high:
            self.problem(node, f"{what} is '{text}'; expected a whole number from {low} to {high}")
            return None
        return int(text)

    def texts(self, node: Node | None, what: str) -> dict[str, str]:
        """A mapping of names to text."""
        if node is None:
            return {}
        return {key: self.text(value, f"{what} '{key}'") for key, value in self.mapping(node, what).items()}
