"""A node's folder while the node runs: its disk may be taken away, and an empty folder be in its place."""

from __future__ import annotations

from pathlib import Path

IDENTITY_FILE = "node.id"


class OwnFolder:
    """A node's folder as it was found; it is known again by the identity that it holds, wherever it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._identity = identity_in(folder)

    def is_there(self) -> bool:
        """Whether it is there; of one that held no identity it can't be said, and is taken for granted."""
        return not self._identity or identity_in(self.folder) == self._identity

    @property
    def away(self) -> str:
        """What is said where it is not."""
        return f"{self.folder}: the node's folder is not there (no {IDENTITY_FILE} of its own): is its disk mounted?"


def identity_in(folder: Path) -> str:
    """The identity of the database that a folder was kept with; empty where it says nothing or can't be read."""
    try:
        return (folder / IDENTITY_FILE).read_text().strip()
    except (OSError, ValueError):
        return ""
