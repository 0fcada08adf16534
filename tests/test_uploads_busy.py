"""Whoever has many uploads finished at once holds up nobody else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from access_nodes import guarded
from carina.receive.upload_parts import UploadParts
from carina.receive.uploads import Upload, Uploads
from test_uploads_served import DATA, begin, put

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
        assert go_on.wait(60)
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
            assert begun.wait(30)
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
