"""Patients that no training may touch, by name, in ``held_out.json``: for development, or untouched and kept for tests.

``scripts/held-out`` runs a measurement on them and counts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from carina.cases.datalist import DataList
from carina.pipeline.json_text import read_json

HELD_OUT = Path(__file__).with_name("held_out.json")

_ENDS = ("", "_", ".", "-")


class HeldOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A patient, or a slice, that is kept out of training ``since`` a day; ``before`` says what had touched it."""

    name: str
    kind: str
    since: str
    before: str


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    note: str
    tests: tuple[HeldOut, ...]
    development: tuple[HeldOut, ...]


@cache
def _listed() -> _Listed:
    return read_json(HELD_OUT.read_bytes(), _Listed)


def held_out() -> tuple[HeldOut, ...]:
    """All that is kept out of training."""
    listed = _listed()
    return listed.tests + listed.development


def kept_for_tests() -> tuple[HeldOut, ...]:
    """What of it no choice and no look has touched; figures on the others are no test."""
    return _listed().tests


def is_held_out(name: str) -> bool:
    """Whether a case or patient of this name is kept out of training: the name itself, or with an ending (``_ct``)."""
    return any(name.startswith(one.name) and name[len(one.name) :][:1] in _ENDS for one in held_out())


def held_out_in(data: DataList) -> Iterator[str]:
    """A problem for each case of a list that is kept out of training; validation belongs to it."""
    for part, number, case in data.numbered():
        kept = [name for name in (case.name, case.patient) if name and is_held_out(name)]
        if kept:
            yield (
                f"{data.file}: {part} case {number} is {kept[0]!r}, which is kept out of training ({HELD_OUT.name}): "
                "take it out of the list; scripts/held-out measures on it and counts that."
            )
