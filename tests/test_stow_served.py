"""STOW-RS to a served node: chunked bodies, Orthanc with real CT, and when nothing is taken."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from pydicom import dcmread
from sqlalchemy import select

from carina.database import ARRIVAL
from carina.service.node import RunningNode
from carina.service.serve import node_of
from carina.testing.pacs import orthanc, orthanc_program
from received_files import instance_rows, small_ct
from served_nodes import opened, serving, settings_of

SOURCE = '[sources.web]\nkind = "dicomweb"\n'
HEAD = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
TYPE = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    made = opened(tmp_path, SOURCE)
    made.is_recovered.set()
    yield made
    made.engine.dispose()


def body_of(*uids: str) -> Iterator[bytes]:
    for uid in uids:
        yield HEAD
        yield small_ct(uid)
    yield b"\r\n--b--"


def test_a_chunked_body_is_stored_and_each_instance_can_be_had_where_the_answer_says(node: RunningNode) -> None:
    with serving(node) as url:
        answer = httpx.post(f"{url}/dicom-web/studies", content=body_of("1.2.3.1", "1.2.3.2"), headers=TYPE)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
        places = [item["00081190"]["Value"][0] for item in answer.json()["00081199"]["Value"]]
        assert [httpx.get(place).status_code for place in places] == [200, 200]
        assert httpx.get(answer.json()["00081190"]["Value"][0]).status_code == 200
    with node.engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.source, ARRIVAL.c.sender)).all() == [("web", "127.0.0.1")]


def test_an_address_with_a_study_takes_only_its_instances(node: RunningNode) -> None:
    with serving(node) as url:
        other = httpx.post(f"{url}/dicom-web/studies/1.9", content=body_of("1.2.3.1"), headers=TYPE)
        assert other.status_code == 409
        assert other.json()["00081198"]["Value"][0]["00081197"] == {"vr": "US", "Value": [0xA901]}
        assert httpx.post(f"{url}/dicom-web/studies/1.2", content=body_of("1.2.3.1"), headers=TYPE).is_success


def test_a_body_of_another_kind_is_refused_in_one_line(node: RunningNode) -> None:
    with serving(node) as url:
        answer = httpx.post(f"{url}/dicom-web/studies", content=b"{}", headers={"Content-Type": "text/x"})
    assert (answer.status_code, answer.json()["code"]) == (415, "stow.content-type")


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "\xff"])
def test_a_compressed_body_is_refused_in_one_line_and_never_inflated(node: RunningNode, encoding: str) -> None:
    packed = gzip.compress(bytes(50_000_000))
    with serving(node) as url:
        headers = {name.encode(): value.encode("latin-1") for name, value in TYPE.items()}
        headers[b"Content-Encoding"] = encoding.encode("latin-1")
        answer = httpx.post(f"{url}/dicom-web/studies", content=packed, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "stow.encoding")
    assert "send the body as it is, without compression" in answer.json()["detail"]


def test_a_node_without_such_a_source_takes_nothing(tmp_path: Path) -> None:
    node = opened(tmp_path)
    with serving(node) as url:
        answer = httpx.post(f"{url}/dicom-web/studies", content=body_of("1.2.3.1"), headers=TYPE)
    assert (answer.status_code, answer.json()["code"]) == (404, "stow.no-source")
    node.engine.dispose()


def test_a_node_that_starts_says_when_to_come_again(node: RunningNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carina.service.dicomweb.stow")
    node.is_recovered.clear()
    with serving(node) as url:
        answer = httpx.post(f"{url}/dicom-web/studies", content=body_of("1.2.3.1"), headers=TYPE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    words = "the node is starting, and not ready yet to receive; send it again."
    assert answer.json()["detail"] == words
    assert f"STOW-RS: a request was refused: {words}" in caplog.messages
    assert instance_rows(node.engine) == 0


def test_senders_that_stop_halfway_are_bounded_and_given_up(tmp_path: Path) -> None:
    node = opened(tmp_path, f"{SOURCE}")
    node.is_recovered.set()
    port = node.settings.web.port
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n"
    head += f"Content-Type: {TYPE['Content-Type']}\r\n\r\n"
    begun = HEAD + small_ct("1.2.3.1") + HEAD
    with serving(node) as url:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(head.encode() + f"{len(begun):x}\r\n".encode() + begun + b"\r\n")
            while instance_rows(node.engine) == 0:  # it is there while the body is still under way
                assert httpx.get(f"{url}/health/live").is_success
        assert httpx.post(f"{url}/dicom-web/studies", content=body_of("1.2.3.2"), headers=TYPE).is_success
    assert instance_rows(node.engine) == 2
    node.engine.dispose()


def test_a_sender_that_sends_a_byte_now_and_then_is_ended(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, SOURCE)
    impatient = msgspec.structs.replace(settings.dicom, idle_s=1.0)
    node = node_of(msgspec.structs.replace(settings, dicom=impatient))
    node.is_recovered.set()
    port = node.settings.web.port
    whole = HEAD + small_ct("1.2.3.1") + HEAD
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n"
    head += f"Content-Type: {TYPE['Content-Type']}\r\n\r\n"
    with serving(node), socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(head.encode() + f"{len(whole):x}\r\n".encode() + whole + b"\r\n")
        peer.settimeout(0.2)
        answer = b""
        while not answer:
            with suppress(TimeoutError):
                answer = peer.recv(65_536)
            with suppress(OSError):
                peer.sendall(b"1\r\nx\r\n")
    assert b" 408 " in answer.splitlines()[0]
    assert instance_rows(node.engine) == 1, "what was whole by then stays"
    node.engine.dispose()


def raw(url: str, headers: bytes, body: bytes) -> Iterator[bytes]:
    """The answers to a request whose body is sent after the first of them, or at once if there is none."""
    port = int(url.rpartition(":")[2])
    kind = TYPE["Content-Type"].encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        head = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: " + kind + b"\r\n" + headers
        peer.sendall(head + b"\r\n")
        yield peer.recv(65_536)
        with suppress(OSError):
            peer.sendall(body)
        yield peer.recv(65_536)


def test_a_sender_that_waits_is_told_to_go_on(node: RunningNode) -> None:
    body = b"".join(body_of("1.2.3.1"))
    with serving(node) as url:
        first, then = raw(url, b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(body), body)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert then.startswith(b"HTTP/1.1 200 ")


def test_a_body_of_two_lengths_is_refused(node: RunningNode) -> None:
    """A proxy may have taken the one, and we would take the other (RFC 9112 6.3)."""
    with serving(node) as url:
        answer = b"".join(raw(url, b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()
    assert b"it has Transfer-Encoding and Content-Length; expected one of them" in answer
    assert instance_rows(node.engine) == 0


@pytest.mark.skipif(not orthanc_program(), reason="Orthanc is not installed; on Debian: apt-get install orthanc")
def test_orthanc_sends_real_ct(node: RunningNode, data: Path) -> None:
    files = sorted((data / "ct" / "lungdx-a0002").glob("*"))
    with serving(node) as url:
        servers = {"Servers": {"carina": {"Url": f"{url}/dicom-web/"}}, "Enable": True, "Root": "/dicom-web/"}
        with orthanc(settings={"DicomWeb": servers}) as pacs:
            ids = [json.loads(_post(f"{pacs.http_url}/instances", file.read_bytes()))["ID"] for file in files]
            said = json.loads(
                _post(f"{pacs.dicomweb_url}/servers/carina/stow", json.dumps({"Resources": ids, "Synchronous": True}))
            )
            sent = pacs.instances()
    assert int(said["InstancesCount"]) == len(files)
    held = {dcmread(file).SOPInstanceUID: dcmread(file).PixelData for file in node.folder.glob("incoming/1/*.dcm")}
    assert tuple(sorted(held)) == sent
    assert held == {dcmread(file).SOPInstanceUID: dcmread(file).PixelData for file in files}


def _post(url: str, body: bytes | str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    with urllib.request.urlopen(urllib.request.Request(url, data=content, method="POST"), timeout=60) as answer:
        return bytes(answer.read())
