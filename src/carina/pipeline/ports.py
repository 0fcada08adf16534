"""Port types: a value's type, or the annotation of a port, says how the value is stored in a folder and read back.

Three things are a port type:

- a class with ``save``, ``load`` and ``recognise`` of its own (``PortValue``; ``Table`` and ``Json`` are two);
- ``Annotated[T, files]``, for a type ``T`` that must know nothing of files: ``files`` has the three (``PortFiles``);
- ``bool``, ``int``, ``float``, ``str``, ``list`` and ``dict``, which are stored as JSON.

A port that takes several is a union of them; which one a folder holds is asked of each in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeGuard, get_origin
from zipfile import BadZipFile

from carina.errors import BadConfig, BadSeries, kind_and_place, with_words
from carina.pipeline.json_text import as_json, read_json
from carina.pipeline.operator import alternatives, holds, notes_of, type_name

Saved = Callable[[object], tuple[Path, ...]]
"""The files a value is already stored in, the one to open first; nothing where it is not stored."""


FILE_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    EOFError,
    OSError,
    BadZipFile,
    RecursionError,
)
"""What reading a damaged file ends in, whatever library reads it."""


class PortValue(Protocol):
    """A value that knows its files: the simplest port type."""

    def save(self, folder: Path, saved: Saved) -> Sequence[Path]:
        """Write the value into an empty folder; gives its files, the one to open first."""

    @classmethod
    def load(cls, files: Sequence[Path]) -> Self:
        """Read a value back from the files of a folder."""

    @classmethod
    def recognise(cls, files: Sequence[Path]) -> bool:
        """Whether files hold such a value: asked where a port takes several types."""


class PortFiles(Protocol):
    """How values of a type are stored. A class that is a ``PortValue`` is one: its ``save`` takes the value first."""

    def save(self, value: Any, folder: Path, saved: Saved, /) -> Sequence[Path]:
        """Write a value into an empty folder; gives its files, the one to open first."""

    def load(self, files: Sequence[Path], /) -> Any:
        """Read a value back from the files of a folder."""

    def recognise(self, files: Sequence[Path], /) -> bool:
        """Whether files hold such a value: asked where a port takes several types."""


class _PlainFiles:
    """Whole numbers, texts and the like: one JSON file."""

    def save(self, value: object, folder: Path, saved: Saved) -> Sequence[Path]:
        path = folder / "value.json"
        path.write_bytes(as_json(value))
        return [path]

    def load(self, files: Sequence[Path]) -> Any:
        return read_json(files[0].read_bytes())

    def recognise(self, files: Sequence[Path]) -> bool:
        return [path.name for path in files] == ["value.json"]


_PLAIN = (bool, int, float, str, list, dict)


def files_of(port_type: Any) -> PortFiles | None:
    """How values of one port type (no union) are stored; None for a type that isn't one."""
    if (get_origin(port_type) or port_type) in _PLAIN:
        return _PlainFiles()
    return next((one for one in (*notes_of(port_type), port_type) if _has_the_three(one)), None)


def _has_the_three(one: Any) -> TypeGuard[PortFiles]:
    return all(callable(getattr(one, name, None)) for name in ("save", "load", "recognise"))


def not_storable(port_type: Any) -> list[str]:
    """The names of those of a port's types that can't be stored."""
    return [type_name(one) for one in alternatives(port_type) if files_of(one) is None]


def save_value(port_type: Any, value: object, folder: Path, saved: Saved = lambda _: ()) -> tuple[Path, ...]:
    """Write a value of a port type into a folder, which is made in one that is there; gives its files, the first first.

    Raises:
        BadConfig: ``ports.unknown``, the port's type can't be stored.
    """
    for one in alternatives(port_type):
        if holds(one, value):
            folder.mkdir(exist_ok=True)
            return tuple(_known(one).save(value, folder, saved))
    raise TypeError(f"a {type(value).__name__} is no {type_name(port_type)}")


def load_value(port_type: Any, files: Sequence[Path]) -> Any:
    """Read a value of a port type back from its files.

    Raises:
        BadConfig: ``ports.unknown``, the type can't be stored; ``ports.unrecognised``, the files hold none of the types
            that the port takes.
    """
    kinds = [_known(one) for one in alternatives(port_type)]
    if len(kinds) == 1:
        return kinds[0].load(files)
    for kind in kinds:
        if kind.recognise(files):
            return kind.load(files)
    names = ", ".join(path.name for path in files[:5]) or "nothing"
    raise BadConfig(
        "ports.unrecognised", f"expected {type_name(port_type)}, found {names}: give the folder of that output."
    )


def load_folder(port_type: Any, folder: Path) -> Any:
    """Read a value of a port type from every file below a folder, which anybody may have filled.

    Raises:
        BadConfig: there is no such folder, or it holds other files than those of the type.
        BadSeries: ``ports.files``, the files are damaged.
    """
    try:
        if not folder.exists():
            raise BadConfig(
                "ports.missing", f"{folder}: no such folder; expected one that holds {type_name(port_type)}."
            )
        return load_files(port_type, files_in(folder), str(folder))
    except OSError as error:
        raise _unreadable(port_type, str(folder), error) from error


def load_files(port_type: Any, files: Sequence[Path], told: str) -> Any:
    """Read a value of a port type from files that anybody may have written; ``told`` is what messages call them.

    Raises:
        BadConfig: they are other files than those of the type.
        BadSeries: ``ports.files``, they are damaged.
    """
    try:
        return load_value(port_type, files)
    except FILE_ERRORS as error:
        raise _unreadable(port_type, told, error) from error


def _unreadable(port_type: Any, told: str, error: Exception) -> BadSeries:
    words = f"{told}: can't be read as {type_name(port_type)} ({kind_and_place(error)}): give it as it was written."
    return with_words(BadSeries("ports.files", words), error)


def files_in(folder: Path) -> list[Path]:
    """Every file below a folder, or the one file that it is."""
    return [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())


def _known(port_type: Any) -> PortFiles:
    files = files_of(port_type)
    if files is None:
        raise BadConfig(
            "ports.unknown",
            f"values of type {type_name(port_type)} can't be stored: give the type save, load and recognise, or "
            "annotate the port with one that has them.",
        )
    return files
