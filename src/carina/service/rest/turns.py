"""Turns of requests that take long: who waits for the same thing, or has enough at once, waits without a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import Semaphore


class Turns:
    """Of each key only so many at a time, in the order in which they came; used from one event loop."""

    def __init__(self) -> None:
        self._places: dict[str, Semaphore] = {}
        self._waiting: dict[str, int] = {}

    @asynccontextmanager
    async def of(self, key: str, at_once: int) -> AsyncIterator[None]:
        """A turn among those with the same key."""
        places = self._places.setdefault(key, Semaphore(at_once))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            async with places:
                yield
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._places[key]
