"""Pages that stay true: the part of a page that changes is sent again whenever it does (server-sent events)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import StreamingResponse

from carina.service.node import RunningNode
from carina.service.problems import NotThere

EVERY_S = 1.0
"""Between two looks at the tables, for each open page."""

QUIET_TIMES = 15
"""After so many looks that saw nothing new something is said all the same, so that a lost connection is seen."""


def stream(node: RunningNode, request: Request, render: Callable[[], str]) -> StreamingResponse:
    """The part of a page, now and whenever it has changed, until the browser goes, its log-in or the node ends."""
    return StreamingResponse(_events(node, request, render), media_type="text/event-stream")


async def _events(node: RunningNode, request: Request, render: Callable[[], str]) -> AsyncIterator[str]:
    last, quiet = "", 0
    while not node.stop.is_set() and not await request.is_disconnected():
        if not await run_in_threadpool(request.app.state.identifier.is_still_in, request):
            return
        try:
            part = await run_in_threadpool(render)
        except NotThere:  # it was moved to a project that they don't see
            return
        digest = hashlib.sha256(part.encode()).hexdigest()
        if digest != last:
            yield "".join(f"data: {line}\n" for line in part.splitlines()) + "\n"
            last, quiet = digest, 0
        elif quiet >= QUIET_TIMES:
            yield ": still here\n\n"
            quiet = 0
        quiet += 1
        await _pause(node)


async def _pause(node: RunningNode) -> None:
    """Wait, but not when the node ends."""
    for _ in range(10):
        if node.stop.is_set():
            return
        await asyncio.sleep(EVERY_S / 10)
