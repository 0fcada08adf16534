"""Whoever has many uploads finished at once holds up nobody else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from access_nodes import guarded
from carina.receive.upload_parts import UploadParts
from carina.receive.uploads import Upload, Uploads
from test_uploads_served import DATA, begin, put
from waiting import wait_until

MORE_THAN_THREADS = 45
"""The pool that answers requests has 40 threads."""


@pytest.mark.parametrize("what", ["finish", "discard"])
def test_others_are_answered_while_many_wait_for_one_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    make = Uploads._make

    def slow(uploads: Uploads, upload: Upload, parts: UploadParts) -> None:
        begun.set()
        wait_until(go_on.is_set)
        make(uploads, upload, parts)

    monkeypatch.setattr(Uploads, "_make", slow)
    with guarded(tmp_path) as node, node.program("operator") as operator, ThreadPoolExecutor(MORE_THAN_THREADS) as pool:
        upload = begin(operator).json()["id"]
        put(operator, upload, DATA)
        headers, place = dict(operator.headers), f"{node.url}/api/v1/uploads/{upload}"

        def press(what: str) -> httpx.Response:
            return httpx.post(f"{place}/{what}", json={} if what == "finish" else None, headers=headers, timeout=60)

        first = pool.submit(press, "finish")
        try:
            wait_until(begun.is_set)
            others = [pool.submit(press, what) for _ in range(MORE_THAN_THREADS - 1)]
            with httpx.Client(base_url=node.url, timeout=20) as anybody:
                for _ in range(40):
                    assert anybody.get("/health/live").status_code == 200
                    assert operator.get("/api/v1/jobs").status_code == 200
            assert not any(one.done() for one in others)
        finally:
            go_on.set()
        job = first.result().json()["id"]
        assert {one.result().status_code for one in others} == {200}
        if what == "finish":
            assert {one.result().json()["id"] for one in others} == {job}


@pytest.mark.parametrize("uploads_at_once", [1, 6])
def test_whoever_finishes_much_holds_up_nobody_elses_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uploads_at_once: int
) -> None:
    """One upload many times, or many uploads: another's is finished meanwhile."""
    go_on = threading.Event()
    make = Uploads._make

    def slow(uploads: Uploads, upload: Upload, parts: UploadParts) -> None:
        assert upload.key == "quick" or go_on.wait(60)
        make(uploads, upload, parts)

    monkeypatch.setattr(Uploads, "_make", slow)
    with (
        guarded(tmp_path) as node,
        node.program("operator") as busy,
        node.person("admin", **{"sec-fetch-site": "same-origin", "accept": "*/*"}) as other,
        ThreadPoolExecutor(12) as pool,
    ):
        ids = [begin(busy, key=f"slow {number}").json()["id"] for number in range(uploads_at_once)]
        quick = begin(other, key="quick").json()["id"]
        for client, upload in [*((busy, one) for one in ids), (other, quick)]:
            put(client, upload, DATA)
        headers, place = dict(busy.headers), f"{node.url}/api/v1/uploads"
        every = [ids[number % len(ids)] for number in range(12)]
        asked: dict[str, Any] = {"json": {}, "headers": headers, "timeout": 60}
        waiting = [pool.submit(httpx.post, f"{place}/{one}/finish", **asked) for one in every]
        try:
            time.sleep(0.5)  # so that they are there before the other; it must be answered however late they come
            assert other.post(f"/api/v1/uploads/{quick}/finish", json={}).status_code == 200
            assert not any(one.done() for one in waiting)
        finally:
            go_on.set()
        assert {one.result().status_code for one in waiting} == {200}
