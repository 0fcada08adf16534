"""The operator table: which operator a name, or a container image of a definition, means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath

from carina.errors import BadConfig
from carina.pipeline.definition import Definition, Step
from carina.pipeline.foreign import ForeignOperator
from carina.pipeline.operator import Operator, Port
from carina.pipeline.ports import not_storable

Foreigners = Callable[[Definition, Step], ForeignOperator | str]
"""Makes an operator of a step whose image no operator of the table has, or says in a sentence why it can't be run."""


MOST_IN_FULL, MOST_NEAR, NEAR = 8, 2, 0.75
"""Names that one line lists: of all, and of those that may be meant, from such a likeness on."""


@dataclass(frozen=True)
class OperatorTable:
    """Operators, no two of them under one name or image; ``refused`` are sentences about those that were left out.

    ``foreigners`` looks after the images that none of them has; without it they are unknown. ``misplaced`` is asked
    about the values that meet in an operator: which of them lies elsewhere than the others, in words. ``left_aside`` is
    asked about the files of an output of others, by its path, that no step reads, and the run's folder: what is to be
    warned of.
    """

    operators: tuple[Operator, ...] = ()
    refused: tuple[str, ...] = ()
    foreigners: Foreigners | None = None
    misplaced: Callable[[Mapping[str, object]], str] = lambda values: ""
    left_aside: Callable[[str, Sequence[Path], Path], str] = lambda path, files, run: ""

    @classmethod
    def of(cls, *operators: Operator) -> OperatorTable:
        """A table of these operators.

        Raises:
            BadConfig: ``operator.refused``, one of them can't be used, or has a name or an image of another.
        """
        return cls().with_all(*operators)

    def with_all(self, *operators: Operator) -> OperatorTable:
        """This table and these operators.

        Raises:
            BadConfig: ``operator.refused``, one of them can't be used, or has a name or an image of another.
        """
        table = self.with_usable(*operators)
        if new := table.refused[len(self.refused) :]:
            raise BadConfig("operator.refused", *new)
        return table

    def with_usable(self, *operators: Operator) -> OperatorTable:
        """This table and those operators that can be used.

        Of two newcomers that share a name or an image neither is taken: chance would decide which of them runs.
        """
        mistakes = {operator: mistake_of(operator) for operator in operators}
        usable = (*self.operators, *(operator for operator, mistake in mistakes.items() if not mistake))
        mistakes = {operator: mistake or _twin(operator, usable) for operator, mistake in mistakes.items()}
        refused = [f"{_told(operator)} is left out: {mistake}." for operator, mistake in mistakes.items() if mistake]
        taken = [operator for operator, mistake in mistakes.items() if not mistake]
        return replace(self, operators=(*self.operators, *taken), refused=(*self.refused, *refused))

    def operator_of(self, definition: Definition, step: Step) -> Operator | str:
        """The operator that a step's image means, or the sentence why there is none."""
        image = step.container.image
        if image in self.images:
            return self.images[image]
        foreign = self.foreigners(definition, step) if self.foreigners else ""
        if isinstance(foreign, ForeignOperator):
            return foreign
        words = [f"unknown image '{image}'", known_or_near(image, self.images), *self.refused]
        return "; ".join([*words, foreign] if foreign else words)

    @cached_property
    def images(self) -> dict[str, Operator]:
        """The operators by the container images that mean them; a definition's tag is informational."""
        return {image: operator for operator in self.operators for image in operator.images}

    @cached_property
    def names(self) -> dict[str, Operator]:
        """The operators by their own names."""
        return {operator.name: operator for operator in self.operators}


def known_or_near(word: str, known: Iterable[str]) -> str:
    """A clause on the names of operators that there are: all where they are few, else those that may be meant."""
    names = sorted(known)
    if len(names) <= MOST_IN_FULL:
        return f"known: {', '.join(names) or 'none'}"
    near = get_close_matches(word, names, MOST_NEAR, NEAR)
    meant = f"is {' or '.join(near)} meant? " if near else ""
    return f"{meant}`carina operator list` shows all that are known"


def mistake_of(operator: Operator) -> str:
    """Why an operator can't be used, in words; empty where it can."""
    if not operator.images or isinstance(operator.images, str):
        return "its images must be a tuple of at least one image name"
    try:
        ports = [*operator.input_ports.values(), *operator.output_ports.values()]
    except (TypeError, NameError) as error:
        return str(error)
    return next(chain(_port_mistakes(ports), _place_mistakes(operator), _setting_mistakes(operator)), "")


def _port_mistakes(ports: Iterable[Port]) -> Iterator[str]:
    for port in ports:
        for name in not_storable(port.type):
            yield f"its port {port.path} is {name}, which has no save, load and recognise (see docs/pipelines.md)"


def _place_mistakes(operator: Operator) -> Iterator[str]:
    for path in sorted({*operator.places} - {*operator.outputs}):
        yield f"it has a place for '{path}', which is no output"
    if operator.replaces_input not in ("", *operator.outputs):
        yield f"it replaces the pipeline's input by '{operator.replaces_input}', which is no output"
    for place in (*operator.places.values(), *(path.lstrip("/") for path in operator.outputs)):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            yield f"its place '{place}' does not lie in the run's folder"


def _setting_mistakes(operator: Operator) -> Iterator[str]:
    for name, setting in (*operator.variables.items(), *operator.options.items()):
        if setting.parameter not in ("", *operator.keywords):
            yield f"'{name}' sets '{setting.parameter}', which is no keyword-only parameter of its function"


def _twin(operator: Operator, others: Iterable[Operator]) -> str:
    """Which of the others has a name or an image of this operator, in words; empty where none has."""
    for other in others:
        if other is not operator and (shared := _names(operator) & _names(other)):
            return f"{_told(other)} is called '{min(shared)}' too; uninstall one of the two"
    return ""


def _names(operator: Operator) -> set[str]:
    return {operator.name, *operator.images}


def _told(operator: Operator) -> str:
    return f"operator '{operator.name}' of {operator.package or 'Carina'}"
