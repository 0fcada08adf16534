"""A request that breaks, by a fault of ours or in an outage: people are answered with a page, programs as ever."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette

from carina.service.app import web_app
from carina.service.headers import HEADERS
from carina.service.viewer.server import run_app
from served_nodes import opened
from viewer_runs import posed, write_run

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"

FAILURES = [
    (ValueError("<b>of a patient</b>"), 500, "bug.ValueError"),
    (OSError(errno.ENOSPC, "no space"), 507, "node.disk-full"),
    (OperationalError("select", {}, Exception("it was shut down")), 503, "node.database-away"),
]


def breaking(monkeypatch: pytest.MonkeyPatch, place: str, error: Exception) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(place, broken)


def asked(app: Starlette, path: str, accept: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path, headers={"accept": accept})

    return asyncio.run(ask())


@pytest.mark.parametrize("place", ["rest.job_pages.list_jobs", "access.gate.Gate.__call__"])
@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=[code for _, _, code in FAILURES])
def test_a_person_is_answered_with_a_page_and_a_program_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str, place: str
) -> None:
    app = web_app(opened(tmp_path))
    breaking(monkeypatch, f"carina.service.{place}", error)
    for path, accept, kind in (
        ("/", BROWSER, "text/html; charset=utf-8"),
        ("/", "*/*", "application/problem+json"),
        ("/api/v1/jobs", BROWSER, "application/problem+json"),
    ):
        answer = asked(app, path, accept)
        assert (answer.status_code, answer.headers["content-type"]) == (status, kind)
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
        assert code in answer.text
        assert "patient" not in answer.text and "shut down" not in answer.text
        if accept == BROWSER and path == "/":
            assert '<a href="/">To the worklist</a>' in answer.text and "<h1>That did not work</h1>" in answer.text
            assert "{" not in answer.text


def test_carina_view_says_that_it_broke_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run_app(write_run(posed("plain", (24, 32, 32)), tmp_path / "run"))
    breaking(monkeypatch, "carina.service.viewer.routes.chosen_voxel", KeyError("of a patient"))
    answer = asked(app, "/", BROWSER)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert "fault of Carina&#39;s (KeyError at " in answer.text and "bug.KeyError" in answer.text
    assert "patient" not in answer.text and '<a href="/report">' in answer.text
