"""JSON: anything that a run has to say, also where a name in it is no text, and the one place that reads it."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar, overload

import msgspec

from carina.nesting import DEEPEST, TOO_DEEP

_T = TypeVar("_T")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))


@overload
def read_json(text: bytes | str) -> Any: ...


@overload
def read_json(text: bytes | str, kind: type[_T]) -> _T: ...


def read_json(text: bytes | str, kind: Any = Any) -> Any:
    """What a JSON text says, as a value of ``kind``.

    Raises:
        msgspec.ValidationError: it is JSON of something else.
        ValueError: it is no JSON, no UTF-8, or nested more than ``DEEPEST`` deep: whatever goes through it later, by
            recursion, would end there.
    """
    try:
        found = msgspec.json.decode(text, type=kind)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    if _is_deep(text.encode() if isinstance(text, str) else text):
        raise ValueError(TOO_DEEP)
    return found


def _is_deep(text: bytes) -> bool:
    """Whether a text that is JSON is nested too deep: the innermost brackets are taken away so many times."""
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    brackets = _STRING.sub(b"", text).translate(_ALIKE, _OTHERS)
    for _ in range(DEEPEST):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def as_json(value: object, order: Literal["deterministic"] | None = None) -> bytes:
    """A value as JSON on one line; bytes of a file's name that are no text (lone surrogates) become their escapes."""
    try:
        return msgspec.json.encode(value, order=order)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(value)), order=order)


def as_pretty_json(value: object) -> bytes:
    """A value as JSON that people read: indented, with a line's end at the end."""
    return msgspec.json.format(as_json(value), indent=2) + b"\n"


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list | tuple) else value
