"""The web application: every route of the node, behind its guard."""

from __future__ import annotations

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from carina.service import health
from carina.service.check import LOOPBACK_NAMES
from carina.service.dicomweb.stow import stow_routes
from carina.service.dicomweb.wado import dicomweb_routes
from carina.service.guard import Guard
from carina.service.node import RunningNode
from carina.service.pages.routes import page_routes
from carina.service.problems import HANDLERS
from carina.service.rest.routes import rest_routes


def all_routes() -> list[BaseRoute]:
    """Every route."""
    return [
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", health.metrics),
        *dicomweb_routes(),
        *stow_routes(),
        *rest_routes(),
        *page_routes(),
    ]


def web_app(node: RunningNode) -> Starlette:
    """The application of a node."""
    guard = Middleware(Guard, hosts=LOOPBACK_NAMES | {node.settings.web.host})
    app = Starlette(routes=all_routes(), middleware=[guard], exception_handlers=dict(HANDLERS))
    app.state.node = node
    app.state.stow = CapacityLimiter(node.settings.dicom.associations)
    return app
