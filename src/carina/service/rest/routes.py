"""The operations as routes, with their document and the page that shows it."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from carina.service.pages.rendering import page
from carina.service.rest.chunks import CHUNK_PATHS, take_chunk
from carina.service.rest.openapi import Schema, openapi
from carina.service.rest.operations import OPERATIONS
from carina.service.rest.uploads import UPLOAD_OPERATIONS

PREFIX = "/api/v1"

EVERY_OPERATION = (*OPERATIONS, *UPLOAD_OPERATIONS)


def rest_routes() -> list[BaseRoute]:
    """Every route of the REST interface."""
    return [
        *(one.route(PREFIX) for one in EVERY_OPERATION),
        Route(f"{PREFIX}/uploads/{{id}}/chunk", take_chunk, methods=["PUT"]),
        Route(f"{PREFIX}/openapi.json", document),
        Route("/api", show_document),
    ]


def node_document() -> Schema:
    """The OpenAPI document of all of it."""
    return openapi(EVERY_OPERATION, PREFIX, CHUNK_PATHS)


def document(_: Request) -> Response:
    """The OpenAPI document."""
    return Response(msgspec.json.encode(node_document()), media_type="application/json")


def show_document(request: Request) -> Response:
    """The document as a page that a person reads."""
    return page(request, "api.html", {"document": node_document(), "prefix": PREFIX})
