"""Whose a correction is, in words: who decided, who painted, who finished."""

from __future__ import annotations

from collections.abc import Sequence


def by_whom(reader: str, painters: Sequence[str], finisher: str = "") -> str:
    """A reader who decided about a mask or finished it, with everybody else whose hand is in it.

    ``painters`` are those whose strokes are in the mask, ``finisher`` is who finished it, both empty of a network's:
    ``Bob``, ``Bob (painted by Rita and Bob)``, ``Ann (painted by Rita, finished by Bob)``.
    """
    is_of_others = finisher not in ("", reader)
    parts = []
    if painters and (is_of_others or list(painters) != [reader]):
        parts.append(f"painted by {listed_people(painters)}")
    if is_of_others:
        parts.append(f"finished by {finisher}")
    return f"{reader} ({', '.join(parts)})" if parts else reader


def listed_people(names: Sequence[str]) -> str:
    """Names in a sentence: ``Ann, Rita and Bob``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
