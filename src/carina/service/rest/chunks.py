"""Chunks of uploads: bodies of bytes, which no operation of the table has."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import anyio
import msgspec
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from carina.receive.uploads import LARGEST_CHUNK
from carina.service.node import seen_node
from carina.service.problems import NotUnderstood
from carina.service.rest.openapi import Schema, refusals
from carina.service.rest.operation import understood
from carina.service.uploads import own_upload

DIGEST = "sha-256=:"
"""How a Content-Digest header begins (RFC 9530)."""

CHUNK_S = 300.0
"""Time that a chunk may take to come."""

CHUNKS_AT_ONCE = 8


class ChunkTaken(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes of a file are on the node's disk for good."""

    bytes: int


CHUNK_PATHS: Mapping[str, Schema] = {
    "/uploads/{id}/chunk": {
        "put": {
            "operationId": "put_chunk",
            "tags": ["Uploads"],
            "summary": "Append a chunk of bytes to a file of an upload, on the disk for good",
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}},
                {"name": "offset", "in": "query", "required": True, "schema": {"type": "integer"}},
                {
                    "name": "Content-Digest",
                    "in": "header",
                    "required": True,
                    "schema": {"type": "string"},
                    "description": "SHA-256 of the chunk: sha-256=:BASE64: (RFC 9530)",
                },
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/octet-stream": {
                        "schema": {"type": "string", "format": "binary", "minLength": 1, "maxLength": LARGEST_CHUNK}
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "Done.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "properties": {"bytes": {"type": "integer"}},
                                "required": ["bytes"],
                            }
                        }
                    },
                },
                **refusals((404, 409, 413, 507)),
            },
        }
    }
}
"""The route as the OpenAPI document has it; ``bytes`` is how many of the file are on the disk for good."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chunk belongs: the path of its file in the upload, and the byte of it that the chunk begins at."""

    name: str
    offset: int


async def take_chunk(request: Request) -> Response:
    """Take a chunk of a file; the body is its bytes, the header Content-Digest their SHA-256."""
    node = seen_node(request)
    chunk = understood(dict(request.query_params), Chunk)
    digest = _digest(request.headers.get("content-digest", ""))
    async with request.app.state.chunks:
        body = await _body(request)
        upload_id = request.path_params["id"]
        taken = await to_thread.run_sync(
            lambda: node.uploads.take(own_upload(node, upload_id), chunk.name, chunk.offset, body, digest)
        )
    return Response(msgspec.json.encode(ChunkTaken(bytes=taken)), media_type="application/json")


def _digest(header: str) -> bytes:
    try:
        if header.startswith(DIGEST) and header.endswith(":"):
            return base64.b64decode(header.removeprefix(DIGEST)[:-1], validate=True)
    except binascii.Error:
        pass
    raise NotUnderstood("upload.digest", "the header Content-Digest is missing; expected sha-256=:BASE64:.")


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        with anyio.fail_after(CHUNK_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_CHUNK:
                    raise NotUnderstood("upload.chunk", f"a chunk has at most {LARGEST_CHUNK} bytes.")
    except TimeoutError as error:
        raise NotUnderstood("upload.slow", f"a chunk took longer than {CHUNK_S:g} s; send smaller ones.") from error
    if not body:
        raise NotUnderstood("upload.chunk", "the chunk is empty.")
    return bytes(body)
