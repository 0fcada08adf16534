"""Pages that stay true: the part of a page that changes is sent again whenever it does (server-sent events)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from carina.service.access.caller import caller_of
from carina.service.node import RunningNode
from carina.service.pages.shared_parts import PagePart
from carina.service.problems import NotThere

EVERY_S = 0.5
"""Between two looks, for each open page."""

AT_MOST_OLD_S = 0.4
"""All pages share a look at the database that is no older, so that one that changes all the time is not looked at, and
the same part not made, for each of them; a change is seen within a second."""

KNOWN_FOR = timedelta(seconds=10)
"""While nothing in the database changes, only time ends a log-in: whether it has is asked so often."""

QUIET_TIMES = 30
"""After so many looks that saw nothing new something is said all the same, so that a lost connection is seen."""

PAGE_IS_OVER = "event: ended\ndata: reload\n\n"
"""Whoever looks may look no more, or as another: the page says so, and does not ask again."""

_STEP_S = 0.1


def stream(node: RunningNode, request: Request, part_of: Callable[[float], PagePart]) -> StreamingResponse:
    """The part of a page, now and whenever it has changed, until the browser goes, its log-in or the node ends.

    ``part_of`` gives it by how old what is known of the database may be.
    """
    return StreamingResponse(_events(node, _Watch(node, request, part_of)), media_type="text/event-stream")


class _Watch:
    """One open page: who looks, and what they were shown last."""

    def __init__(self, node: RunningNode, request: Request, part_of: Callable[[float], PagePart]) -> None:
        self.request = request
        self._node, self._part_of = node, part_of
        self._shown: PagePart | None = None
        self._version: object = None
        self._asked_at: datetime | None = None

    def part(self) -> PagePart | None:
        """The part as it is now; None once whoever looks may look no more."""
        try:
            part = self._part_of(AT_MOST_OLD_S)
        except NotThere:  # it was moved to a project that they don't see
            return None
        is_new, self._shown = part is not self._shown, part
        return part if self._is_still_in(0.0 if is_new else AT_MOST_OLD_S) else None

    def _is_still_in(self, at_most_old_s: float) -> bool:
        """Asked after the part was made: what came once they might look no more is not shown."""
        version, now = self._node.version.now(at_most_old_s), self._node.now()
        if version == self._version and self._asked_at is not None and now - self._asked_at <= KNOWN_FOR:
            return True
        self._version, self._asked_at = version, now
        is_in: bool = self.request.app.state.identifier.is_still_in(self.request)
        return is_in


async def _events(node: RunningNode, watch: _Watch) -> AsyncIterator[str]:
    last, quiet = "", 0
    while not node.stop.is_set() and not await watch.request.is_disconnected():
        part = await run_in_threadpool(watch.part)
        if part is None:
            yield PAGE_IS_OVER
            return
        if part.html != last:
            shown = part.of(caller_of(watch.request))
            yield "".join(f"data: {line}\n" for line in shown.splitlines()) + "\n"
            last, quiet = part.html, 0
        elif quiet >= QUIET_TIMES:
            yield ": still here\n\n"
            quiet = 0
        quiet += 1
        await _pause(node)


async def _pause(node: RunningNode) -> None:
    """Wait, but not when the node ends."""
    for _ in range(round(EVERY_S / _STEP_S)):
        if node.stop.is_set():
            return
        await asyncio.sleep(_STEP_S)
