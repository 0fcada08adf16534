"""UIDs that follow from what an object is made of, so a repeated run makes the same ones."""

from __future__ import annotations

import uuid

NAMESPACE = uuid.UUID("8a4ba8a4-6b1f-5c53-9d0c-9a1f0c0f6a1d")
"""Fixed for ever: a change would give every derived object a second identity."""


def derived_uid(*parts: str) -> str:
    """A UID under ``2.25`` (PS3.5 B.2) from a name-based UUID (RFC 9562, version 5) over ``parts``, in order."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(31).join(parts)).int}"
