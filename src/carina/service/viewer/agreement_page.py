"""The page of what readers decided over many runs: how network and readers agree; each row opens its mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from carina.corrections.masks import CORRECTIONS, MaskName
from carina.corrections.reviewed import Reviewed, agreement, reviewed
from carina.service.viewer.routes import STATIC, Above, RevalidatedFiles, answering, viewer_page

LookedAt = Callable[[Request], Mapping[str, Path]]
"""Gives the runs that may have a reader's decision, by the address of their pages, without a slash at the end."""


@dataclass(frozen=True, kw_only=True)
class ReviewedRow:
    """A row as the page shows it: the address of the mask's page, and what was decided."""

    href: str
    found: Reviewed


def agreement_routes(runs: LookedAt, above: Above) -> list[BaseRoute]:
    """The page, with the styles that it needs."""

    def show(request: Request) -> Response:
        rows = [
            ReviewedRow(href=f"{address}/correct/{one.layer}", found=one)
            for address, folder in runs(request).items()
            if (folder / CORRECTIONS).is_dir()
            for one in reviewed(folder)
        ]
        found = [row.found for row in rows]
        values = {"above": above, "rows": rows, "summary": [agreement(found, layer) for layer in MaskName]}
        return viewer_page(request, "agreement.html", values)

    return [Route("/", answering(show)), Mount("/static", RevalidatedFiles(directory=STATIC))]
