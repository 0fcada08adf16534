"""How it is known that a peer has an object."""

from __future__ import annotations

from enum import StrEnum


class Proof(StrEnum):
    """The ways, the surest first."""

    COMMITMENT = "commitment"
    QUERY = "query"
    DIGEST = "digest"
    STATUS = "status"
