"""Over TLS: cookies that are bound to it, and senders who show a certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from access_nodes import PASSWORD, Guarded, form_token, guarded
from carina.database import INSTANCE
from carina.service.peers import peer_name
from certificates import self_signed


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates with their keys: ``node``, ``scanner`` and ``stranger``."""
    return self_signed(tmp_path_factory.mktemp("tls"), "node", "scanner", "stranger")


@pytest.fixture(scope="module")
def node(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    files = {"certificate": "node.crt", "key": "node.key", "trusted": "scanner.crt"}
    table = "[web.tls]\n" + "".join(f'{key} = "{certificates / file}"\n' for key, file in files.items())
    with guarded(tmp_path_factory.mktemp("guarded"), table) as served:
        served.url = served.url.replace("http:", "https:")
        yield served


def client(node: Guarded, certificates: Path, shown: str = "") -> httpx.Client:
    trusting = ssl.create_default_context(cafile=str(certificates / "node.crt"))
    if shown:
        trusting.load_cert_chain(certificates / f"{shown}.crt", certificates / f"{shown}.key")
    return httpx.Client(base_url=node.url, verify=trusting)


def multipart(file: Path) -> tuple[bytes, dict[str, str]]:
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n--b--\r\n"
    return body, {"content-type": 'multipart/related; type="application/dicom"; boundary=b'}


def test_a_certificate_that_is_trusted_stores_and_sees_nothing(node: Guarded, certificates: Path) -> None:
    with node.node.engine.begin() as connection:
        connection.execute(INSTANCE.delete())
    body, headers = multipart(min((node.node.folder.parent / "ct").glob("*.dcm")))
    scanner = client(node, certificates, "scanner")
    assert scanner.post("/dicom-web/studies", content=body, headers=headers).status_code == 200
    with node.node.engine.connect() as connection:
        assert len(connection.execute(select(INSTANCE.c.id)).all()) == 1
    assert scanner.get("/dicom-web/studies").status_code == 403
    assert scanner.get("/").status_code == 403
    foreign = headers | {"origin": "https://evil.example"}
    assert scanner.post("/dicom-web/studies", content=body, headers=foreign).status_code == 403
    bare = client(node, certificates)
    assert bare.post("/dicom-web/studies", content=body, headers=headers).status_code == 401


def test_a_certificate_that_nobody_trusts_gets_no_connection(node: Guarded, certificates: Path) -> None:
    with pytest.raises(httpx.TransportError):
        client(node, certificates, "stranger").get("/health/live")


def test_a_log_in_over_tls_has_a_cookie_of_this_host_and_of_tls(node: Guarded, certificates: Path) -> None:
    browser = client(node, certificates)
    fields = {"token": form_token(browser.get("/login").text), "name": "reader.one", "password": PASSWORD}
    cookie = browser.post("/login", data=fields).headers["set-cookie"]
    assert cookie.startswith("__Host-carina=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert browser.get("/").status_code == 200


def test_a_person_with_a_certificate_is_the_person(node: Guarded, certificates: Path) -> None:
    browser = client(node, certificates, "scanner")
    sent = browser.get("/", headers={"accept": "text/html"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/login?to=%2F")
    fields = {"token": form_token(browser.get("/login").text), "name": "reader.one", "password": PASSWORD}
    assert browser.post("/login", data=fields).status_code == 303
    assert "reader.one, reader" in browser.get("/").text


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        ({"subject": ((("countryName", "DE"),), (("commonName", "CT 1\n"),))}, "CT 1 "),
        ({"subject": ((("countryName", "DE"),),)}, "without a name"),
        ({}, "without a name"),
        ({"subject": ((("commonName", "x" * 100),),)}, "x" * 64),
    ],
)
def test_the_name_in_a_certificate_is_one_line(certificate: dict[str, object], name: str) -> None:
    assert peer_name(certificate) == name
