"""Processes that end with everything they started, whatever ends them: a guard stands beside each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from carina.pipeline import program_guard

ENDED_BY_SIGNAL = 128
"""A guard's exit code, where a signal ended what it runs, is this and the signal's number."""


def guard_words(words: Sequence[str], *, stop: Sequence[str] = (), fed: bool = False) -> list[str]:
    """The command that runs a command under a guard, which has to be the leader of a process group.

    ``stop`` is the command that ends what it leaves to others, if there is any. The guard, and all that it runs, end
    when the guard's standard input is closed; ``fed``: the command reads what comes in there before.
    """
    how = json.dumps({"stop": list(stop), "fed": fed})
    return [sys.executable, "-I", "-S", program_guard.__file__, how, *words]
