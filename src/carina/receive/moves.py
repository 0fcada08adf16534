"""C-MOVEs for earlier scans: which of the instances that reach our listener came because we asked for them.

It is a fact of each instance: the C-STORE that a C-MOVE sets off names who asked and the number of the request
(PS3.7 9.1.1.1). A peer that leaves that out, which it may, is believed to answer while it does.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PRIOR_MESSAGE = 0x5052
"""The message ID of every C-MOVE for an earlier scan; those of ``carina fetch`` have another."""


FETCHING, SAY_WHO_ASKED = "fetching", "say-who-asked.txt"
"""What is kept of fetches in a node's folder, and the titles of peers in it."""


@dataclass(frozen=True, kw_only=True)
class AskedBy:
    """What a C-STORE request says of the C-MOVE that set it off, and the AE title of whoever sends it."""

    sender: str
    originator: str = ""
    message_id: int | None = None


class Moves:
    """The C-MOVEs for earlier scans that are being answered.

    Which of the ``peers`` (AE titles of those that we ask) name whoever asked is kept in ``file``, a title a line, and
    so known after a restart as well. Of others it does not matter, and whoever sends may call itself as it likes.
    """

    def __init__(self, peers: Collection[str] = (), file: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._under_way: list[tuple[str, str, str]] = []
        self._peers, self._file = frozenset(peers), file
        self._say_who_asked = self._peers & _titles_in(file) if file else frozenset()

    @contextmanager
    def answered(self, source: str, sender: str, series_uid: str) -> Iterator[None]:
        """While a peer answers: what it sends of the series to a source."""
        one = (source, sender.strip(), series_uid)
        with self._lock:
            self._under_way.append(one)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.remove(one)

    def brought(self, source: str, series_uid: str, asked: AskedBy, ours: frozenset[str]) -> bool:
        """Whether an instance came because an earlier scan was asked for; ``ours`` are the titles that we ask under.

        In doubt it did not: then it is run as whatever is sent to us.
        """
        with self._lock:
            if asked.originator:
                self._remember(asked.sender)
                return asked.originator in ours and asked.message_id == PRIOR_MESSAGE
            is_silent = asked.sender not in self._say_who_asked
            return is_silent and (source, asked.sender, series_uid) in self._under_way

    def _remember(self, sender: str) -> None:
        if sender not in self._peers - self._say_who_asked:
            return
        self._say_who_asked |= {sender}
        if self._file is None:
            return
        with suppress(OSError):  # it is learned again
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as titles:
                titles.write(f"{sender}\n")


def _titles_in(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return frozenset()
