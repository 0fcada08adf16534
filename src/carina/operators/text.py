"""How the texts of container variables and command options are read."""

from __future__ import annotations

from collections.abc import Callable

from carina.pipeline.json_text import read_json


def text_list(text: str) -> tuple[str, ...]:
    r"""A JSON list of texts; quotes may be escaped once too often, as in the spec's ``[\"Lung-seg\"]``.

    Raises:
        ValueError: the text is no such list.
    """
    for candidate in (text, text.replace('\\"', '"')):
        try:
            return read_json(candidate, tuple[str, ...])
        except ValueError:
            continue
    raise ValueError('expected a list of texts like ["Lung-seg"]')


def switch(text: str) -> bool:
    """``on`` or ``off``.

    Raises:
        ValueError: the text is neither.
    """
    return one_of("on", "off")(text) == "on"


def one_of(*known: str) -> Callable[[str], str]:
    """A reader of a text that must be one of those known."""

    def read(text: str) -> str:
        if text not in known:
            raise ValueError(f"expected {' or '.join(known)}")
        return text

    return read
