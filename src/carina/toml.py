"""TOML files that users write: bounded before they are parsed, every mistake told at once and with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec

from carina.errors import BadConfig
from carina.nesting import check_extent

LARGEST_TOML_BYTES = 1 << 17
LONGEST_TOML_LINE = 2_000
"""The parser's time grows with the square of the parts of a dotted key, and a key lies on one line."""

LONGEST_WORDS = 200

Key = tuple[str, ...]

_HEADER = re.compile(r"\s*\[{1,2}([^\[\]]*)\]")
_ASSIGNED = re.compile(r"""\s*((?:[\w.\- ]|"[^"]*"|'[^']*')+?)\s*=""", re.ASCII)
_PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Toml:
    """A file's table, and where its keys are."""

    file: Path
    text: str
    table: dict[str, Any]

    def place(self, key: Key) -> str:
        """The file, with the line of a key, or of the table that it is in, where that is found."""
        found = next((self._lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self._lines), None)
        return f"{self.file}:{found}" if found else f"{self.file}"

    @cached_property
    def _lines(self) -> dict[Key, int]:
        lines: dict[Key, int] = {}
        above: Key = ()
        for number, line in enumerate(self.text.split("\n"), start=1):
            if header := _HEADER.match(line):
                above = _parts(header[1])
                lines.setdefault(above, number)
            elif assigned := _ASSIGNED.match(line):
                lines.setdefault((*above, *_parts(assigned[1])), number)
        return lines


def _parts(dotted: str) -> Key:
    return tuple(next(filter(None, found), "") for found in _PART.findall(dotted))


def read_toml(file: Path, kind: str) -> Toml:
    """Read a file; ``kind`` begins the codes of its errors (``config.syntax``).

    Raises:
        BadConfig: it can't be read, is larger than any file that a person writes, or is no TOML.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_TOML_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadConfig(f"{kind}.unreadable", f"{file}: can't be read ({reason}).") from error
    try:
        text = data.decode("utf-8-sig")
        if len(data) > LARGEST_TOML_BYTES or max(map(len, text.split("\n"))) > LONGEST_TOML_LINE:
            limits = f"at most {LARGEST_TOML_BYTES} bytes, in lines of at most {LONGEST_TOML_LINE} characters"
            raise BadConfig(f"{kind}.syntax", f"{file}: too large for a settings file; expected {limits}.")
        table = tomllib.loads(text)
        check_extent(table)
        return Toml(file=file, text=text, table=table)
    except UnicodeDecodeError as error:
        raise BadConfig(f"{kind}.syntax", f"{file}: no valid TOML: it is no text in UTF-8.") from error
    except ValueError as error:
        raise BadConfig(f"{kind}.syntax", f"{file}: no valid TOML: {str(error)[:LONGEST_WORDS]}.") from error
    except RecursionError as error:
        raise BadConfig(f"{kind}.syntax", f"{file}: no valid TOML: its values are nested too deeply.") from error


def take_out(table: dict[str, Any], key: Key) -> Key:
    """Remove a key from a table; gives what went: the key, or where it is not there the table that misses it."""
    within: Any = table
    for end, name in enumerate(key[:-1], start=1):
        within = within[name]
        if not isinstance(within, dict):  # an array: it goes as a whole
            return take_out(table, key[:end])
    if key[-1] in within:
        del within[key[-1]]
        return key
    return take_out(table, key[:-1])


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """What is wrong with a key."""

    key: Key
    words: str


def mistakes(value: Any, kind: Any, key: Key = ()) -> Iterator[Mistake]:
    """Every mistake of a value that should be converted to a type: structs, tables of them, and plain values."""
    kind = _without_none(kind)
    if _is_struct(kind) or _is_table(kind) or isinstance(kind, UnionType):
        if not isinstance(value, Mapping):
            yield Mistake(key=key, words=f"expected a table, got `{type(value).__name__}`")
        elif _is_struct(kind):
            yield from _struct_mistakes(value, kind, key)
        elif _is_table(kind):
            yield from _table_mistakes(value, get_args(kind), key)
        else:
            yield from _tagged_mistakes(value, get_args(kind), key)
        return
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        yield Mistake(key=key, words=_words(error, kind))


def _words(error: msgspec.ValidationError, kind: Any) -> str:
    """What is wrong, and which values there are where there are only some."""
    words = str(error).split(" - at `$")[0]
    said = words[0].lower() + words[1:LONGEST_WORDS]
    if ("matching regex" in said or "`array` of length" in said) and (meant := _meant(kind)):
        return f"expected {meant}"
    choices = _choices(kind) if words.startswith("Invalid enum value") else []
    return f"{said}; expected {', '.join(choices)}" if choices else said


def _meant(kind: Any) -> str:
    """What a pattern or a length stands for, in words."""
    told = [one.description for one in getattr(kind, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    return next(filter(None, told), "")


def _choices(kind: Any) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(one.value) for one in kind]
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    return [choice for one in get_args(kind) for choice in _choices(one)]


def _without_none(kind: Any) -> Any:
    """What a value may be that can also be left out: TOML has no word for None."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if isinstance(kind, UnionType) else []
    return kinds[0] if len(kinds) == 1 else kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_table(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _struct_mistakes(table: Mapping[str, Any], kind: type[msgspec.Struct], key: Key) -> Iterator[Mistake]:
    fields = _fields_of(kind)
    tag = kind.__struct_config__.tag_field
    for name in table:
        if name not in fields and name != tag:
            yield Mistake(key=(*key, name), words=f"unknown key; known are {', '.join(fields)}")
    for name, field in fields.items():
        if name in table:
            yield from mistakes(table[name], field.type, (*key, name))
        elif field.required:
            yield Mistake(key=key, words=f"the key {name} is missing")


@cache
def _fields_of(kind: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """The fields of a struct by their keys; msgspec reads its annotations anew each time."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _table_mistakes(table: Mapping[str, Any], kinds: tuple[Any, Any], key: Key) -> Iterator[Mistake]:
    for name, one in table.items():
        try:
            msgspec.convert(name, kinds[0])
        except msgspec.ValidationError as error:
            yield Mistake(key=(*key, name), words=f"can't be called so: {_words(error, kinds[0])}")
        yield from mistakes(one, kinds[1], (*key, name))


def _tagged_mistakes(table: Mapping[str, Any], kinds: tuple[type[msgspec.Struct], ...], key: Key) -> Iterator[Mistake]:
    tags = {kind.__struct_config__.tag: kind for kind in kinds}
    tag = kinds[0].__struct_config__.tag_field or "type"
    given = table.get(tag)
    if isinstance(given, str) and given in tags:
        yield from _struct_mistakes(table, tags[given], key)
    else:
        seen = "is missing" if given is None else f"is {str(given)[:LONGEST_WORDS]!r}"
        yield Mistake(key=(*key, tag), words=f"{seen}; expected {', '.join(map(str, tags))}")
