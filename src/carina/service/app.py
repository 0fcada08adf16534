"""The web application: every route of the node, behind its guard."""

from __future__ import annotations

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Route

from carina.database import Outages
from carina.service import health
from carina.service.access.gate import Gate
from carina.service.access.identify import Identifier
from carina.service.access.oidc import Provider
from carina.service.access.password import account_routes
from carina.service.access.routes import Doors, access_routes
from carina.service.dicomweb.stow import stow_routes
from carina.service.dicomweb.wado import dicomweb_routes
from carina.service.guard import Guard
from carina.service.node import RunningNode
from carina.service.pages.routes import page_routes
from carina.service.pages.shared_parts import SharedParts
from carina.service.refusals import HANDLERS, OUTER_HANDLERS
from carina.service.rest.chunks import CHUNKS_AT_ONCE
from carina.service.rest.operation import LONG_AT_ONCE
from carina.service.rest.routes import rest_routes
from carina.service.rest.turns import Turns
from carina.service.slow import PromptBodies
from carina.service.web_address import LOOPBACK_NAMES

HASHED_AT_ONCE = 2
"""Passwords that are tried at the same time: each takes 64 MB and a good part of a second."""

PAGES_AT_ONCE = 2
"""Worklists that are made at the same time; one interpreter makes no more of them by sharing its time among many."""


def all_routes() -> list[BaseRoute]:
    """Every route."""
    return [
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
        *dicomweb_routes(),
        *stow_routes(),
        *rest_routes(),
        *access_routes(),
        *account_routes(),
        *page_routes(),
    ]


def web_app(node: RunningNode) -> Starlette:
    """The application of a node."""
    web, identifier = node.settings.web, Identifier(node)
    names = LOOPBACK_NAMES | {web.host, *(name.lower() for name in web.names)}
    guard = Middleware(Guard, hosts=names, public_url=web.public_url)
    prompt = Middleware(PromptBodies, idle_s=node.settings.dicom.idle_s)
    gate = Middleware(Gate, node=node, identifier=identifier)
    broken_off = Middleware(ExceptionMiddleware, handlers=dict(OUTER_HANDLERS))  # who asks is looked up in the database
    app = Starlette(
        routes=all_routes(), middleware=[guard, prompt, broken_off, gate], exception_handlers=dict(HANDLERS)
    )
    app.state.outages, app.state.own = Outages("web", node.folder), node.own
    app.state.identifier = identifier
    app.state.provider = Provider(web.oidc) if web.oidc else None
    app.state.doors = Doors()
    app.state.hashing = CapacityLimiter(HASHED_AT_ONCE)
    app.state.stow = CapacityLimiter(node.settings.dicom.associations)
    app.state.chunks = CapacityLimiter(CHUNKS_AT_ONCE)
    app.state.long, app.state.turns = CapacityLimiter(LONG_AT_ONCE), Turns()
    app.state.pages, app.state.parts = CapacityLimiter(PAGES_AT_ONCE), SharedParts(node.version)
    return app
