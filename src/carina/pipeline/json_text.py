"""JSON of anything that a run has to say, also where a name in it is no text."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


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
