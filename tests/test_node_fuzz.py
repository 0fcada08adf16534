"""Whatever is asked of the node over HTTP, it answers: found, refused, not there or away; never a fault of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from carina.service.app import all_routes, web_app
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from served_nodes import add_job, hold, opened

LIVE = re.compile(r"/(live|superseded)$")
"""Streams that end with the browser only."""


@dataclass(frozen=True)
class Address:
    """A route's path with a method that it has."""

    method: str
    path: str


def addresses() -> list[Address]:
    found = [one for one in all_routes() if isinstance(one, Route)]
    return [
        Address(method, one.path)
        for one in found
        for method in sorted(one.methods or set())
        if method != "HEAD" and not LIVE.search(one.path)
    ]


@dataclass(frozen=True)
class Fuzzed:
    """A node's application, and UIDs of what it holds."""

    client: TestClient
    uids: dict[str, str]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Fuzzed:
    folder = tmp_path_factory.mktemp("fuzz")
    node = opened(folder, '[destinations.D]\nkind = "folder"\npath = "/nowhere/that/can/be"\n')
    volume = chest_phantom(shape=(3, 32, 32), lesions=0, seed=5).volume
    files = write_ct_series(volume, folder / "ct")
    hold(node, files)
    add_job(node, 1)
    app: Starlette = web_app(node)
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)
    header = dcmread(files[0])
    uids = {"study": header.StudyInstanceUID, "series": header.SeriesInstanceUID, "instance": header.SOPInstanceUID}
    return Fuzzed(client, uids | {"frames": "1", "id": "1", "job:int": "1", "name": "D", "tag": "00080018"})


words = st.text(max_size=30) | st.sampled_from(
    ["1", "0", "-1", "99999999999999999999", "..", "%2e%2e", "nan", "1e400", "*", "\\", "2.25.1", "PatientName", "\0"]
)
names = st.sampled_from(
    [
        "limit",
        "offset",
        "before",
        "state",
        "StudyDate",
        "PatientName",
        "includefield",
        "window",
        "viewport",
        "accept",
        "00100020",
        "ModalitiesInStudy",
        "job",
        "destination",
        "pipeline",
        "quality",
        "fuzzymatching",
    ]
)
bodies = st.binary(max_size=60) | st.dictionaries(names | words, words | st.integers() | st.none(), max_size=4).map(
    lambda table: repr(table).replace("'", '"').replace("None", "null").encode("utf-8", "replace")
)
accepts = st.sampled_from(["", "*/*", "image/png", "application/dicom+json", 'multipart/related; type="x"', ";;,,=q"])


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")


def test_every_route_is_asked() -> None:
    assert len(addresses()) > 35


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_no_request_is_a_fault(fuzzed: Fuzzed, data: st.DataObject) -> None:
    address = data.draw(st.sampled_from(addresses()))
    known = data.draw(st.integers(0, 3)) > 0
    path = re.sub(
        r"{([^}]+)}",
        lambda part: fuzzed.uids.get(part[1], "1") if known else quoted(data.draw(words)) or "1",
        address.path,
    )
    query = data.draw(st.lists(st.tuples(names | words, words), max_size=3))
    answer = fuzzed.client.request(
        address.method,
        path + "?" + "&".join(f"{quoted(name)}={quoted(value)}" for name, value in query),
        content=data.draw(bodies) if address.method != "GET" else None,
        headers={"Accept": data.draw(accepts)},
    )
    assert answer.status_code in {*range(200, 500), 502, 503}, (address, answer.text)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_nothing_outside_is_read(fuzzed: Fuzzed) -> None:
    for path in ("/static/../acting.py", "/static/%2e%2e/acting.py", "/static//etc/passwd", "/jobs/1/view/../../etc"):
        assert fuzzed.client.get(path).status_code in (404, 405)
