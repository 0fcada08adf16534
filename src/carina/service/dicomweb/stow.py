"""STOW-RS as routes (PS3.18 10.5): bodies come in as they are sent and go to the store, whatever their length."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

import anyio
import msgspec
from anyio import from_thread, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from carina.config import DicomwebSource
from carina.deliver.dicomweb import DICOM_JSON
from carina.receive.multipart import BadBody
from carina.receive.store import SentBy
from carina.receive.stow import StowAnswer, StowRequest, store_over_the_web
from carina.service.dicomweb.accept import check_takes_json
from carina.service.dicomweb.wado import ROOT, service_root, taken_forms
from carina.service.node import RunningNode, seen_node
from carina.service.problems import NotThere, problem
from carina.service.slow import TooSlow

_LOG = logging.getLogger(__name__)

RETRY_S = "5"
"""What a sender is told to wait while the node can't take what it sends."""


def stow_routes() -> list[BaseRoute]:
    """Storing of instances of any study, and of one."""
    return [Route(ROOT + path, store_instances, methods=["POST"]) for path in ("/studies", "/studies/{study}")]


async def store_instances(request: Request) -> Response:
    """Take the instances of the body; the answer lists what became of each."""
    node = seen_node(request)
    source = _source(node)
    check_takes_json(taken_forms(request), "what became of instances is")  # before any of them is stored
    if not node.is_recovered.is_set():
        return _busy("the node is starting, and not ready yet to receive; send it again.")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        words = f"Content-Encoding: {encoding[:80]!r}; send the body as it is, without compression."
        return problem(415, "stow.encoding", words)
    limiter: anyio.CapacityLimiter = request.app.state.stow
    if limiter.borrowed_tokens >= limiter.total_tokens:
        return _busy(f"{limiter.total_tokens:g} senders are at it (dicom.associations); send it again later.")
    said = StowRequest(
        origin=SentBy(source, request.client.host if request.client else ""),
        content_type=request.headers.get("content-type", ""),
        study_uid=request.path_params.get("study", ""),
        retrieve_root=service_root(request),
    )
    chunks = _chunks(request.stream())
    answer = await to_thread.run_sync(store_over_the_web, node.store, said, chunks, limiter=limiter)
    return _response(answer)


def _source(node: RunningNode) -> str:
    found = [name for name, source in node.settings.sources.items() if isinstance(source, DicomwebSource)]
    if not found:
        of_these = " and ".join(sorted(node.projects or ()))
        where = f"project {of_these}" if of_these else "this node"
        words = f'{where} takes nothing by STOW-RS: it has no source of kind "dicomweb".'
        raise NotThere("stow.no-source", words)
    return found[0]


def _chunks(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """A body's chunks for the thread that stores them.

    Raises:
        BadBody: the sender is gone, or was waited for too long.
    """
    try:
        while (chunk := from_thread.run(_next, stream)) is not None:
            yield chunk
    except ClientDisconnect as error:
        raise BadBody(400, "stow.gone", "the sender went away in the middle of the body.") from error
    except TooSlow as error:
        raise BadBody(408, "stow.idle", str(error)) from error


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    """The next chunk; None at the end of the body."""
    return await anext(stream, None)


def _response(answer: StowAnswer) -> Response:
    if answer.message and not answer.body:
        return problem(answer.status, answer.code, answer.message)
    headers = {"Retry-After": RETRY_S} if answer.status == 503 else {}
    return Response(msgspec.json.encode(answer.body), answer.status, headers, DICOM_JSON)


def _busy(words: str) -> Response:
    _LOG.info("STOW-RS: a request was refused: %s", words)
    told = problem(503, "stow.busy", words)
    told.headers["Retry-After"] = RETRY_S
    return told
