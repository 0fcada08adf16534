"""The sender: empties the delivery ledger, with a thread for each destination, so that no one delays another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

from filelock import FileLock, Timeout
from sqlalchemy import Engine

from carina.config import Destination
from carina.database import Outages
from carina.deliver.channels import channel_to
from carina.deliver.courier import Courier
from carina.deliver.pace import PACE, Pace
from carina.errors import BadConfig, LastingTrouble, told

SENDER_LOCK = "sender.lock"

_LOG = logging.getLogger(__name__)


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / SENDER_LOCK, mode=0o600, thread_local=False)


def _acquire(lock: FileLock) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        words = "another process delivers from this node's folder: stop it first."
        raise BadConfig("node.sender", f"{lock.lock_file}: {words}") from None


@contextmanager
def while_nothing_is_sent(folder: Path) -> Iterator[None]:
    """Keep every sender of a node's folder from starting.

    Raises:
        BadConfig: a process delivers from it now.
    """
    lock = _lock_of(folder)
    _acquire(lock)
    try:
        yield
    finally:
        lock.release()


class Sender:
    """Threads that deliver until they are stopped. A second sender on the same node's folder is refused.

    ``clock`` gives the time in UTC.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        destinations: Mapping[str, Destination],
        clock: Callable[[], datetime],
        pace: Pace = PACE,
    ) -> None:
        self._stopping = Event()
        self._pace = pace
        self._lock = _lock_of(folder)
        couriers = [
            Courier(
                engine=engine,
                folder=folder,
                name=name,
                destination=destination,
                channel=channel_to(name, destination),
                pace=pace,
                clock=clock,
                is_stopping=self._stopping.is_set,
            )
            for name, destination in destinations.items()
        ]
        self._threads = [
            Thread(target=self._deliver, args=(courier,), name=f"to {courier.name}", daemon=True)
            for courier in couriers
        ]

    def start(self) -> None:
        """Begin to deliver.

        Raises:
            BadConfig: another process delivers from this folder.
        """
        _acquire(self._lock)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """End after the objects that are on their way now; gives whether every thread ended in time."""
        self._stopping.set()
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))
        has_ended = not any(thread.is_alive() for thread in self._threads)
        if has_ended:
            self._lock.release()
        return has_ended

    def _deliver(self, courier: Courier) -> None:
        has_resumed, trouble = False, LastingTrouble()
        outages = Outages(f"destination {courier.name}", courier.folder)
        while not self._stopping.is_set():
            try:
                if not has_resumed:
                    courier.resume()
                    has_resumed = True
                was_busy = courier.round()
                outages.is_over()
            except Exception as error:  # noqa: BLE001 - the network edge: one bad answer must not end deliveries
                met = error if courier.own.is_there() else courier.own.away
                if outages.met(met) is None and trouble.is_news((failure := told(error)).message):
                    _LOG.error("delivery failed", extra={"destination": courier.name, "error": failure.message})
                was_busy = has_resumed = False  # what was begun has no end in the ledger, as after a crash
                self._stopping.wait(self._pace.first_s)
            if not was_busy:
                self._stopping.wait(self._pace.idle_s)
