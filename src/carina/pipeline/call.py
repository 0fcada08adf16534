"""One call of an operator: what goes in and what comes out is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carina.errors import ONLY_WHILE_WRITING, CarinaError, ModelFailed, WrongType
from carina.pipeline import ports
from carina.pipeline.graph import Node, Wire
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
    if operator.is_apart:
        return results
    _check_types(node, results)
    if words := misplaced({**given, **{f"output {path}": value for path, value in results.items()}}):
        raise ModelFailed("operator.grid", f"{operator.told_in(node.name)} gave what can't be used: {words}.")
    return results


def read_output(wanted: Any, files: Sequence[Path], wire: Wire) -> Any:
    """What an operator that ran outside of this process left at an output, as whoever reads it wants it.

    Raises:
        ModelFailed: ``operator.output``, it is no such thing.
    """
    place = f"operator '{wire.step}' {wire.path}"
    try:
        return ports.load_files(wanted, files, place)
    except CarinaError as error:
        first, *more = error.message.split("\n")
        words = f"{place}: what it left can't be read as {type_name(wanted)}: {first}"
        failure = ModelFailed("operator.output", words, *more)
        failure.said = error.said
        raise failure from error


def is_to_blame(operator: Operator, error: Exception | SystemExit) -> bool:
    """Whether an exception of an operator's code is for the operator's makers, who are others.

    What Carina raises on purpose is not, nor what the memory or the disk is to blame for.
    """
    if isinstance(error, CarinaError | MemoryError) or not operator.is_code_of_others:
        return False
    return not (isinstance(error, OSError) and error.errno in ONLY_WHILE_WRITING)


def _given(node: Node, arguments: Mapping[str, object]) -> dict[str, object]:
    known = node.operator.input_ports.items()
    return {f"input {path}": arguments[port.key] for path, port in known if port.key in arguments}


def _check_types(node: Node, results: Mapping[str, object]) -> None:
    for path, value in results.items():
        port = node.operator.output_ports[path]
        if not holds(port.type, value):
            given = type(value).__name__
            raise WrongType(f"operator {node.name} gave {given} at {path}, declared as {type_name(port.type)}")
