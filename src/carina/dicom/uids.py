"""UIDs: which can be kept, and those that follow from what an object is made of: a repeated run makes the same ones."""

from __future__ import annotations

import re
import uuid

NAMESPACE = uuid.UUID("8a4ba8a4-6b1f-5c53-9d0c-9a1f0c0f6a1d")
"""Fixed for ever: a change would give every derived object a second identity."""

LONGEST_UID = 64

UID_FORM = re.compile(r"\d+(\.\d+)*", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether a text can be kept as a UID: numbers between dots, 64 characters at most (PS3.5 9.1).

    Zeros before a number are forbidden there, yet some scanners write them: they are kept, because a result with
    another Study Instance UID would not be shown beside its images.
    """
    return len(text) <= LONGEST_UID and UID_FORM.fullmatch(text) is not None


def derived_uid(*parts: str) -> str:
    """A UID under ``2.25`` (PS3.5 B.2) from a name-based UUID (RFC 9562, version 5) over ``parts``, in order."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(31).join(parts)).int}"
