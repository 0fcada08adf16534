"""Parts of the node that run in threads of their own: each is watched, and begins again when it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from carina.database import Outages, OwnFolder
from carina.errors import LastingTrouble, told

_LOG = logging.getLogger(__name__)

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0

WORKS_AGAIN_S = 10.0
"""A part that an outage ended works again once it has lived for so long: all of them look around at once."""

PartWork = Callable[[threading.Event], None]
"""What a part does until the event is set; it returns soon after that, and before that never."""


class PartState(StrEnum):
    """How a part of the node is."""

    RUNNING = "running"
    BROKEN = "broken"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class PartStatus:
    """How a part is, how often it has died, and what it last died of."""

    name: str
    state: PartState
    deaths: int
    error: str


class Part:
    """A part with its thread: whatever ends it, it begins again after a pause.

    The pause doubles from one second to a minute, and is short again once the part has lived for longer than that.
    While the node's folder, ``own``, is not there it rests: whatever ends it then is not its fault, and is not told.
    """

    def __init__(
        self,
        name: str,
        work: PartWork,
        *,
        stop: threading.Event,
        own: OwnFolder | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._work, self._stop, self._clock_s = work, stop, clock_s
        self._own = own
        self._trouble, self._outages = LastingTrouble(clock_s), Outages(name, own.folder if own else Path(), clock_s)
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._status = PartStatus(name=name, state=PartState.STOPPED, deaths=0, error="")

    @property
    def status(self) -> PartStatus:
        """How it is now."""
        return self._status

    def start(self) -> None:
        """Begin."""
        self._set(PartState.RUNNING, deaths=0, error="")
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended after the event was set; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _live(self) -> None:
        pause_s, deaths = SHORTEST_PAUSE_S, 0
        while not self._stop.is_set():
            began_s = self._clock_s()
            error = self._once()
            if self._stop.is_set():
                break
            if self._is_folder_away():
                self._stop.wait(SHORTEST_PAUSE_S)
                continue
            deaths += 1
            pause_s = SHORTEST_PAUSE_S if self._clock_s() - began_s > LONGEST_PAUSE_S else pause_s
            self._set(PartState.BROKEN, deaths=deaths, error=error)
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._set(PartState.RUNNING, deaths=deaths, error=error)
        self._set(PartState.STOPPED, deaths=deaths, error="")

    def _once(self) -> str:
        """Let it work until it ends; why it did."""
        works_again = threading.Timer(WORKS_AGAIN_S, self._outages.is_over)
        works_again.daemon = True
        works_again.start()
        try:
            self._work(self._stop)
        except Exception as error:  # noqa: BLE001 - whatever ends one part, the node says so and lives
            if self._is_folder_away():
                return ""
            if (outage := self._outages.met(error)) is not None:
                return outage.message
            if self._trouble.is_news(f"{type(error).__name__}: {error}"):
                _LOG.error("a part of the node died", exc_info=error, extra={"died": self.name})
            return told(error).message
        finally:
            works_again.cancel()
        return "it ended by itself"

    def _is_folder_away(self) -> bool:
        return self._own is not None and not self._own.is_there()

    def _set(self, state: PartState, *, deaths: int, error: str) -> None:
        self._status = PartStatus(name=self.name, state=state, deaths=deaths, error=error)


def start_all(parts: Iterable[Part]) -> None:
    """Start parts in their order."""
    for part in parts:
        part.start()
        _LOG.info("part started", extra={"started": part.name})


def stop_all(parts: Sequence[Part], stop: threading.Event, timeout_s: float) -> None:
    """Tell every part to end, and wait for all of them; those that don't are named in the log."""
    stop.set()
    for part in parts:
        if not part.join(timeout_s):
            _LOG.warning("a part of the node did not end in time", extra={"late": part.name})
