"""A node with a job whose masks the tests correct over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Table, select, update

from carina.api.result import Run
from carina.database import JOB
from carina.service.node import RunningNode
from served_nodes import add_job, hold, opened, serving
from viewer_runs import posed, through_dicom, write_run

SETTINGS = """
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
[destinations.share]
kind = "folder"
path = "{results}"
"""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A node with one job that has ended, and what a browser would send to it."""

    node: RunningNode
    url: str
    job: int
    run: Run

    @property
    def node_url(self) -> str:
        return self.url.partition("/jobs/")[0]

    def post(self, what: str, **asked: object) -> httpx.Response:
        return httpx.post(f"{self.url}/{what}", json=asked, timeout=60)

    def paint(self, revision: int) -> int:
        """A stroke of one voxel more on a mask of that revision; gives the revision after it."""
        stroke = {"id": f"stroke {revision}", "reader": "Jane Doe", "tool": "brush", "runs": [9 * revision, 1]}
        return int(self.post("strokes", revision=revision, **stroke).json()["revision"])

    def decided(self, decision: str, revision: int) -> str:
        """What is said of a decision about a mask of that revision."""
        answer = self.post("decision", revision=revision, reader="Jane Doe", decision=decision)
        return str(answer.raise_for_status().json()["said"])

    def rows(self, table: Table) -> list[Any]:
        with self.node.engine.connect() as connection:
            return list(connection.execute(select(table)))


@contextmanager
def correctable_job(tmp_path: Path) -> Iterator[Served]:
    """A node whose one job has ended, with the series that it read."""
    node = opened(tmp_path, SETTINGS.format(results=tmp_path / "results"))
    phantom = through_dicom(posed("plain", (24, 48, 48)), tmp_path / "ct")
    phantom = replace(phantom, lesion=replace(phantom.lesion, names={1: "COVID-19 lesion"}))
    arrival = hold(node, sorted((tmp_path / "ct").iterdir()))
    job = add_job(node, arrival)
    folder = node.folder / "runs" / str(job)
    with node.engine.begin() as connection:
        values = {
            "source": f"incoming/{arrival}",
            "folder": f"runs/{job}",
            "destinations": '["share"]',
        }
        connection.execute(update(JOB).where(JOB.c.id == job).values(**values))
    run = Run(write_run(phantom, folder))
    with serving(node) as url:
        yield Served(node=node, url=f"{url}/jobs/{job}/view/correct/lesion", job=job, run=run)
