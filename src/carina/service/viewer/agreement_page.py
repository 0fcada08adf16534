"""The page of what readers decided over many runs: how network and readers agree; each row opens its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from carina.api.result import Run
from carina.corrections.masks import CORRECTIONS, MaskName
from carina.corrections.reviewed import Reviewed, agreement, reviewed
from carina.errors import BadConfig
from carina.service.problems import said_to
from carina.service.viewer.looked_at import RunsLookedAt
from carina.service.viewer.routes import STATIC, Above, RevalidatedFiles, answering, run_heading, viewer_page

LookedAt = Callable[[Request], RunsLookedAt]
"""Gives the runs whose masks readers looked at."""


@dataclass(frozen=True, kw_only=True)
class ReviewedRow:
    """A row as the page shows it: the address of the mask's page, how the run is named, and what was decided."""

    href: str
    name: str
    found: Reviewed


def agreement_routes(runs: LookedAt, menu: tuple[Above, ...], called: str = "") -> list[BaseRoute]:
    """The page, with the styles that it needs.

    ``menu`` are the pages beside it, ``called`` stands before the name of a run's folder.
    """

    def show(request: Request) -> Response:
        rows: list[ReviewedRow] = []
        damaged: list[str] = []
        looked_at = runs(request)
        for address, folder in looked_at.runs.items():
            if not (folder / CORRECTIONS).is_dir():
                continue
            try:
                rows += _rows(address, folder, called)
            except BadConfig as error:
                damaged.append(said_to(request, error))
        found = [row.found for row in rows]
        summary = [agreement(found, layer) for layer in MaskName]
        values = {"menu": menu, "rows": rows, "damaged": damaged, "summary": summary, "looked_at": looked_at}
        return viewer_page(request, "agreement.html", values)

    return [
        Route("/", answering(show, lambda _request, _error: menu)),
        Mount("/static", RevalidatedFiles(directory=STATIC)),
    ]


def _rows(address: str, folder: Path, called: str) -> list[ReviewedRow]:
    name = run_heading(Run(folder), called)
    return [ReviewedRow(href=f"{address}/correct/{one.layer}", name=name, found=one) for one in reviewed(folder)]
