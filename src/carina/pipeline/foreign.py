"""Operators of others: what a definition asks for that no operator of the table is, run as a program on folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from carina.pipeline.operator import Operator, Port
from carina.pipeline.values import Files

OWN_IMAGES = ("carina/", "clara/")
"""Images of these names are Carina's own operators, or nobody's."""

UNASKED_MB = 4096
"""The memory of a program whose step asks for none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ForeignOperator(Operator):
    """A program, which knows no types: its ports are those that its step declares, by path.

    ``function`` takes its values under the ports' paths and gives a ``Files`` for each output. ``types`` are what an
    input may hold. ``how`` says how the program is run, and ``mark`` changes with the program, as far as can be seen.
    """

    types: Mapping[str, Any]
    how: str
    mark: str

    @property
    def is_built_in(self) -> bool:
        """Never: Carina's version doesn't tell the program."""
        return False

    @property
    def is_apart(self) -> bool:
        """Always: it is a program."""
        return True

    @cached_property
    def code_sha256(self) -> str:
        """The program's mark."""
        return self.mark

    @cached_property
    def input_ports(self) -> dict[str, Port]:
        """A port for each input that the step declares."""
        return {path: Port(path=path, key=path, type=kind) for path, kind in self.types.items()}

    @cached_property
    def output_ports(self) -> dict[str, Port]:
        """A port for each output that the step declares: files."""
        return {path: Port(path=path, key=path, type=Files) for path in self.outputs}

    def results(self, returned: object) -> dict[str, object]:
        """The function gives its outputs by path."""
        return dict(returned) if isinstance(returned, Mapping) else {}
