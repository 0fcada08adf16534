"""One call of an operator: what goes in and what comes out is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from carina.errors import ONLY_WHILE_WRITING, CarinaError, ModelFailed, WrongType
from carina.pipeline.graph import Node
from carina.pipeline.operator import Operator, holds, type_name

Misplaced = Callable[[Mapping[str, object]], str]
"""Which of some values, by the paths of their ports, does not lie where the others do, in words; empty where all do."""


class RaisedByOthers(Exception):
    """An ``error`` of an operator of others, whose makers must act; ``operator`` names it and its package."""

    def __init__(self, node: Node, error: Exception | SystemExit) -> None:
        self.operator, self.error = node.operator.told_in(node.name), error
        super().__init__(self.operator)
        self.__cause__ = error


def call_operator(
    node: Node, arguments: Mapping[str, object], keywords: Mapping[str, object], misplaced: Misplaced
) -> Mapping[str, object]:
    """Run an operator; its outputs by path.

    Raises:
        ModelFailed: ``operator.grid``, what it was given, or what it gave, lies on different grids.
        WrongType: an output is not of the type that is declared.
    """
    operator = node.operator
    given = _given(node, arguments)
    if words := misplaced(given):
        givers = ", ".join(f"'{wire.step}'" for wire in node.wires.values() if wire.step)
        raise ModelFailed(
            "operator.grid", f"operator '{node.name}' can't use what {givers or 'its caller'} gave: {words}."
        )
    results = operator.results(operator.function(**arguments, **keywords))
    _check_types(node, results)
    if words := misplaced({**given, **{f"output {path}": value for path, value in results.items()}}):
        raise ModelFailed("operator.grid", f"{operator.told_in(node.name)} gave what can't be used: {words}.")
    return results


def is_to_blame(operator: Operator, error: Exception | SystemExit) -> bool:
    """Whether an exception of an operator's code is for the operator's makers, who are others.

    What Carina raises on purpose is not, nor what the memory or the disk is to blame for.
    """
    if isinstance(error, CarinaError | MemoryError) or not operator.is_code_of_others:
        return False
    return not (isinstance(error, OSError) and error.errno in ONLY_WHILE_WRITING)


def _given(node: Node, arguments: Mapping[str, object]) -> dict[str, object]:
    ports = node.operator.input_ports.items()
    return {f"input {path}": arguments[port.key] for path, port in ports if port.key in arguments}


def _check_types(node: Node, results: Mapping[str, object]) -> None:
    for path, value in results.items():
        port = node.operator.output_ports[path]
        if not holds(port.type, value):
            given = type(value).__name__
            raise WrongType(f"operator {node.name} gave {given} at {path}, declared as {type_name(port.type)}")
