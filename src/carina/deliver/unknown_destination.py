"""What is said of objects whose destination the settings don't have: they are in the ledger, and wait for its name."""

from __future__ import annotations

STRANDED = "delivery.unknown-destination"
"""Code of rows whose destination the settings don't have."""


def stranded_words(name: str) -> str:
    """Why a row waits that goes to such a destination, and what to do."""
    return f"{name} is not in the settings: put it back, or carina deliveries rename {name} NEW."


def why_waiting(name: str, *, is_known: bool) -> dict[str, str]:
    """Code and error of a row that waits to go to a destination, as columns; empty where the settings have it."""
    return {"error_code": "", "error": ""} if is_known else {"error_code": STRANDED, "error": stranded_words(name)}
