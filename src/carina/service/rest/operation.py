"""One operation of the REST interface: what it is asked, what it does, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from carina.errors import with_words
from carina.pipeline.json_text import read_json
from carina.service.access.caller import asking, caller_of
from carina.service.node import RunningNode, seen_node
from carina.service.peer_names import told_to
from carina.service.problems import NotUnderstood
from carina.service.rest.shown import shown_to
from carina.service.rest.turns import Turns
from carina.toml import mistakes

LONG_AT_ONCE = 4

_LARGEST_BODY = 64 * 1024

Asked = TypeVar("Asked", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Asked]):
    """An operation: its fields that the path names come from there, the others from the query (GET) or a JSON body.

    One that ``is_long`` (it unpacks, or waits for what does) has threads apart from those that answer everything else,
    of which ``LONG_AT_ONCE`` may be taken: others wait for their turn without a thread. One path has one of them, and
    whoever asks never all.
    """

    method: str
    path: str
    asked: type[Asked]
    answer: type[msgspec.Struct]
    run: Callable[[RunningNode, Asked], msgspec.Struct]
    tag: str
    summary: str
    refusals: tuple[int, ...] = ()
    is_long: bool = False

    @property
    def name(self) -> str:
        """What clients that are made from the OpenAPI document call it."""
        return self.run.__name__

    @property
    def in_path(self) -> tuple[str, ...]:
        """The fields that the path names."""
        fields = (field.encode_name for field in msgspec.structs.fields(self.asked))
        return tuple(name for name in fields if f"{{{name}}}" in self.path)

    @property
    def has_body(self) -> bool:
        """Whether what is not in the path comes as JSON."""
        return self.method != "GET" and len(self.in_path) < len(msgspec.structs.fields(self.asked))

    def route(self, prefix: str) -> Route:
        """The operation as a route."""

        async def answer(request: Request) -> Response:
            given = await _given(request, has_body=self.has_body)
            asked = understood(given, self.asked)
            if self.is_long:
                from_node = await self._in_turn(request, asked)
            else:
                from_node = await to_thread.run_sync(self.run, seen_node(request), asked)
            caller, settings = caller_of(request), seen_node(request).every_setting
            shown = told_to(shown_to(from_node, caller), caller, settings)
            return Response(msgspec.json.encode(shown), media_type="application/json")

        return Route(prefix + self.path, answer, methods=[self.method], name=self.name)

    async def _in_turn(self, request: Request, asked: Asked) -> msgspec.Struct:
        """Run it in a long thread, once those are done that are asked for on the same thing, and enough of the same."""
        turns: Turns = request.app.state.turns
        subject = request.path_params.get("id", self.path)
        async with turns.of(f"on {subject}", 1), turns.of(f"by {asking.get()}", LONG_AT_ONCE - 1):
            return await to_thread.run_sync(self.run, seen_node(request), asked, limiter=request.app.state.long)


async def _given(request: Request, *, has_body: bool) -> Mapping[str, Any]:
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        given[name] = value
    if has_body:
        given |= _table(await body_of(request))
    return given | dict(request.path_params)


async def body_of(request: Request) -> bytes:
    """A request's body.

    Raises:
        NotUnderstood: it is larger than any that is asked for.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY:
            raise NotUnderstood("web.body", f"the body has more than {_LARGEST_BODY} bytes; expected a small object.")
    return bytes(body)


def _table(body: bytes) -> dict[str, Any]:
    try:
        table = read_json(body or b"{}")
    except ValueError as error:
        raise with_words(NotUnderstood("web.body", "the body is no JSON."), error) from error
    if not isinstance(table, dict):
        raise NotUnderstood("web.body", "the body is no JSON object.")
    return table


def understood(given: Mapping[str, Any], kind: type[Asked]) -> Asked:
    """What is asked, checked.

    Raises:
        NotUnderstood: keys or values are wrong; the message has a line for each.
    """
    lines = [f"{'.'.join(wrong.key) or 'it'}: {wrong.words}" for wrong in mistakes(given, kind)]
    if lines:
        raise NotUnderstood("web.asked", *lines)
    return msgspec.convert(given, kind, strict=False)
