"""An operator: a plain typed function, and what a definition calls its parts.

Positional parameters are input ports, typed by their annotations (``T | None = None`` is an optional one). Keyword-only
parameters are settings, read from container variables and command options, or services injected by type. The return
annotation is the one output port, or a NamedTuple whose fields are the output ports.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the engine tells a running operator, and lets it say; injected where an operator asks for it by type.

    ``step`` is the operator's name in the definition, ``folder`` the run's folder, ``when`` the run's first start.
    ``progress`` takes a fraction from 0 to 1, ``warn`` a sentence and ``record`` a named fact for the manifest (the
    fact ``files`` lists, relative to ``folder``, what the operator wrote there itself);
    ``saved`` gives the files that a value was stored in, the one to open first, and waits for them.
    """

    step: str
    folder: Path
    when: dt.datetime
    progress: Callable[[float], None]
    warn: Callable[[str], None]
    record: Callable[[str, object], None]
    saved: Callable[[object], tuple[Path, ...]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A container variable or command option: the keyword-only ``parameter`` it sets, and how its text is read.

    ``read`` raises ValueError, with a sentence that says what was expected. ``parameter`` may be empty: the setting
    is understood and checked, and changes nothing here. Settings with a ``key`` share a parameter, a mapping by key.
    """

    parameter: str
    key: str = ""
    read: Callable[[str], object] = str
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output: its path in the container, its parameter or field in Python, its type."""

    path: str
    key: str
    type: Any
    required: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """An entry of the operator table.

    ``images`` are the container image names that mean it. ``inputs`` maps container paths to positional parameters,
    ``outputs`` container paths to fields of the result (``""``: the result itself), ``places`` container paths to the
    folder in the run (``.``: the run folder itself) that an output is stored in. ``services`` are the images of servers
    that a definition may ask for. ``replaces_input`` is the container path of an output that all others must read in
    place of the pipeline's input, because something was taken out of it. ``package`` is where an operator of another
    package comes from, with its version, and ``entry`` (``MODULE:NAME``) how it is found there; the engine says it.
    """

    name: str
    images: tuple[str, ...]
    function: Callable[..., object]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Setting] = field(default_factory=dict)
    options: Mapping[str, Setting] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    replaces_input: str = ""
    package: str = ""
    entry: str = ""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def is_built_in(self) -> bool:
        """Whether the operator is Carina's own, so that Carina's version tells its code."""
        return not self.is_code_of_others

    @property
    def is_apart(self) -> bool:
        """Whether it runs outside of this process: what it gives are files, and what it is given may be."""
        return False

    @property
    def is_code_of_others(self) -> bool:
        """Whether the function is not Carina's, so that what it raises is its makers' to mend."""
        return self.function.__module__.partition(".")[0] != __name__.partition(".")[0]

    def told_in(self, step: str) -> str:
        """The operator as a message names it: by its step, and where it is not Carina's by its package as well."""
        place = "" if self.is_built_in else f" ({self.name} of {self.package or self.function.__module__})"
        return f"operator '{step}'{place}"

    @cached_property
    def code_sha256(self) -> str:
        """A hash of the source that the function stands in: its module, or, in a notebook, itself; empty without."""
        for one in (inspect.getmodule(self.function), self.function):
            try:
                return hashlib.sha256(inspect.getsource(one).encode()).hexdigest()  # type: ignore[arg-type]
            except (OSError, TypeError):
                continue
        return ""

    @cached_property
    def hints(self) -> dict[str, Any]:
        """The function's annotations, resolved."""
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def input_ports(self) -> dict[str, Port]:
        """Input ports by path, in the table's order.

        Raises:
            TypeError: the table names a parameter that the function does not have, or leaves one out.
        """
        parameters = inspect.signature(self.function).parameters
        positional = [p for p in parameters.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        if {p.name for p in positional} != set(self.inputs.values()):
            raise TypeError(f"operator {self.name}: inputs {dict(self.inputs)} don't match its function's parameters")
        return {
            path: Port(
                path=path,
                key=name,
                type=_without_none(self.hints[name]),
                required=parameters[name].default is inspect.Parameter.empty,
            )
            for path, name in self.inputs.items()
        }

    @cached_property
    def output_ports(self) -> dict[str, Port]:
        """Output ports by path, in the table's order.

        Raises:
            TypeError: the table's outputs are not the fields of the function's result.
        """
        result = self.hints.get("return", type(None))
        fields = result_fields(result)
        expected = {""} if fields is None and result is not type(None) else set(fields or {})
        if set(self.outputs.values()) != expected:
            raise TypeError(f"operator {self.name}: outputs {dict(self.outputs)} don't match its result {expected}")
        types_ = fields or {"": result}
        return {path: Port(path=path, key=key, type=types_[key]) for path, key in self.outputs.items()}

    @cached_property
    def keywords(self) -> dict[str, inspect.Parameter]:
        """The keyword-only parameters: settings and injected services."""
        parameters = inspect.signature(self.function).parameters
        return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}

    @cached_property
    def injected(self) -> dict[str, Any]:
        """Keyword-only parameters that no setting sets, with the type a service must have."""
        settable = {s.parameter for s in (*self.variables.values(), *self.options.values())}
        return {name: _without_none(self.hints[name]) for name in self.keywords if name not in settable}

    def results(self, returned: object) -> dict[str, object]:
        """Output values by path, taken out of what the function returned."""
        return {path: returned if key == "" else getattr(returned, key) for path, key in self.outputs.items()}


def result_fields(result: Any) -> dict[str, Any] | None:
    """Names and types of the fields of a NamedTuple, which holds ports; None for a type that is one port itself."""
    if isinstance(result, type) and issubclass(result, tuple) and hasattr(result, "_fields"):
        return get_type_hints(result, include_extras=True)
    return None


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The parts of a union, each with what it is annotated with; a type by itself is a union of one."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def notes_of(annotation: Any) -> tuple[Any, ...]:
    """What a type is annotated with: the ``x`` of ``Annotated[T, x]``."""
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def members(annotation: Any) -> tuple[Any, ...]:
    """The bare types of a union; a type by itself is a union of one."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    parts = alternatives(annotation)
    return parts if parts == (annotation,) else tuple(one for part in parts for one in members(part))


def fits(given: Any, wanted: Any) -> bool:
    """Whether every value of type ``given`` is one of type ``wanted``."""
    return all(any(_is_kind(one, other) for other in members(wanted)) for one in members(given))


def type_name(annotation: Any) -> str:
    """A type as a message shows it."""
    return " or ".join(getattr(one, "__name__", str(one)) for one in members(annotation))


def holds(annotation: Any, value: object) -> bool:
    """Whether a value is of the annotated type (of a generic one, only its origin is looked at)."""
    return any(one is Any or isinstance(value, get_origin(one) or one) for one in members(annotation))


def _is_kind(given: Any, wanted: Any) -> bool:
    if given == wanted or wanted is Any or wanted is object:
        return True
    return isinstance(given, type) and isinstance(wanted, type) and issubclass(given, wanted)


def _without_none(annotation: Any) -> Any:
    kept = tuple(one for one in alternatives(annotation) if one is not type(None))
    return Union[kept] if kept else annotation  # noqa: UP007
