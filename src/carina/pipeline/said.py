"""What operators say for the manifest, within bounds: whatever they say, it can be read again."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

import msgspec

from carina.errors import LONGEST_LINE, one_line, shortened
from carina.pipeline.json_text import as_pretty_json, read_json
from carina.pipeline.manifest import LARGEST_MANIFEST_BYTES, OperatorRecord

MOST_WARNINGS = 100
"""Warnings that an operator's record takes; a chest CT has some ten."""

MOST_SAID_BYTES = LARGEST_MANIFEST_BYTES // 4
"""What the warnings and facts of all operators take in a manifest."""

INDENT_BYTES = 16
"""What a line of a fact takes at its place in the manifest beside itself."""

LEFT_OUT = "The operator gave more warnings, which were left out."


class Statements:
    """Takes the warnings and facts of a run's operators, which may be at work in several threads."""

    def __init__(self, records: Iterable[OperatorRecord]) -> None:
        said = [text for record in records for text in (*record.warnings, *record.facts.items())]
        self._left = MOST_SAID_BYTES - sum(map(_size, said))
        self._lock = Lock()

    def warn(self, record: OperatorRecord, sentence: str) -> None:
        """Note a warning on one line, cut where it is too long; where there is no room, that there were more."""
        line = one_line(sentence)
        if len(line) > LONGEST_LINE:
            line = f"{shortened(line)} (cut, of {len(line)} characters)"
        with self._lock:
            if len(record.warnings) > MOST_WARNINGS or record.warnings[-1:] == [LEFT_OUT]:
                return
            has_room = len(record.warnings) < MOST_WARNINGS and self._takes(line)
            record.warnings.append(line if has_room else LEFT_OUT)

    def note(self, record: OperatorRecord, key: str, fact: object) -> None:
        """Note a fact; in the place of one that is too large or nested too deep stands a warning."""
        value = msgspec.to_builtins(fact, str_keys=True)
        with self._lock:
            is_taken = _is_readable(value) and self._takes((key, value))
        if is_taken:
            record.facts[key] = value
        else:
            self.warn(record, f"The fact '{shortened(key, 100)}' is too large for the manifest, and was left out.")

    def _takes(self, said: object) -> bool:
        size = _size(said)
        if size > self._left:
            return False
        self._left -= size
        return True


def _size(said: object) -> int:
    """What something takes in a manifest: a warning stands there twice, in the operator's record and in the run's."""
    text = as_pretty_json(said)
    size = len(text) + INDENT_BYTES * text.count(b"\n")
    return 2 * size if isinstance(said, str) else size


def _is_readable(value: object) -> bool:
    try:
        read_json(as_pretty_json(value))
    except ValueError:
        return False
    return True
