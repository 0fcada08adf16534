"""Every mistake of a definition at once, before anything runs."""

from __future__ import annotations

from carina.pipeline.definition import Definition, invalid, read_definition
from carina.pipeline.document import Problem
from carina.pipeline.graph import Graph, bind
from carina.pipeline.table import OperatorTable


def check_definition(definition: Definition, table: OperatorTable) -> list[Problem]:
    """The mistakes of a definition's graph, by line: images, ports, types along wires, cycles, settings."""
    return sorted(bind(definition, table)[1])


def check_text(text: str, name: str, table: OperatorTable) -> list[Problem]:
    """The mistakes of a definition's text and of its graph, by line."""
    definition, problems = read_definition(text, name)
    return sorted({*problems, *check_definition(definition, table)})


def bound(definition: Definition, table: OperatorTable) -> Graph:
    """The graph of a definition.

    Raises:
        BadConfig: the definition has mistakes; the message lists each with its line.
    """
    graph, problems = bind(definition, table)
    if problems:
        raise invalid(definition.file, problems)
    return graph
