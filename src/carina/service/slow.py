"""Bodies that come too slowly: a caller that sends a byte now and then would hold a connection, and more, for good."""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST_BYTES = 65_536
"""What must come while a caller is waited for ``idle_s``, or the end of the body."""


class TooSlow(Exception):
    """So little of a body came that it is not waited for any longer. HTTP 408."""


class PromptBodies:
    """The middleware: within ``idle_s`` seconds of waiting, ``LEAST_BYTES`` of a body come, or the rest of it.

    The time that it takes us to do something with what came is not the caller's. After the body, whoever waits to hear
    that the caller has gone waits for as long as it likes.
    """

    def __init__(self, app: ASGIApp, *, idle_s: float) -> None:
        self.app, self.idle_s = app, idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        prompt = _Prompt(receive, self.idle_s) if scope["type"] == "http" else receive
        await self.app(scope, prompt, send)


class _Prompt:
    """What gives the parts of one request's body."""

    def __init__(self, receive: Receive, idle_s: float) -> None:
        self._receive, self._idle_s = receive, idle_s
        self._left_s, self._came, self._is_whole = idle_s, 0, False

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        began = anyio.current_time()
        try:
            with anyio.fail_after(self._left_s):
                message = await self._receive()
        except TimeoutError as error:
            words = f"{self._came} bytes of it came in {self._idle_s:g} s (dicom.idle_s), expected {LEAST_BYTES} or all"
            raise TooSlow(f"the body comes too slowly: {words}; send it again.") from error
        self._note(message, anyio.current_time() - began)
        return message

    def _note(self, message: Message, waited_s: float) -> None:
        self._left_s -= waited_s
        self._came += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._came >= LEAST_BYTES:
            self._left_s, self._came = self._idle_s, 0
