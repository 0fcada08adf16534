"""The node behind a real nginx, with the configuration of docs/node.md to the letter but for ports and files."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from access_nodes import PASSWORD, Guarded, form_token, guarded
from carina.database import ARRIVAL
from carina.testing.ports import free_port
from received_files import small_ct
from served_nodes import add_job

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "node.md"
CLIENT = "127.0.0.5"
"""Another address of this machine than the proxy's own."""

AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{server}}}
"""


@dataclass(frozen=True, kw_only=True)
class Proxied:
    """A node, and where it is reached through nginx."""

    guarded: Guarded
    url: str
    port: int
    certificate: Path

    def client(self, **headers: str) -> httpx.Client:
        """Somebody at another address, who calls the public name."""
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        trusted.check_hostname = False
        way = httpx.HTTPTransport(verify=trusted, local_address=CLIENT)
        told = {"Host": self.url.removeprefix("https://"), "Origin": self.url, **headers}
        return httpx.Client(base_url=f"https://127.0.0.1:{self.port}", transport=way, headers=told, timeout=60)


def _configuration(folder: Path, port: int, node: str) -> str:
    found = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.S)
    assert found is not None
    server = found[1]
    for said, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("http://127.0.0.1:8042", node),
        ("carina.crt", f"{folder}/carina.crt"),
        ("carina.key", f"{folder}/carina.key"),
    ):
        assert said in server
        server = server.replace(said, here)
    return AROUND.format(folder=folder, server=server)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed; on Debian: apt-get install nginx-light openssl")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=carina.example.org"]
    files = ["-keyout", str(folder / "carina.key"), "-out", str(folder / "carina.crt")]
    subprocess.run([*making, *files], check=True, capture_output=True)
    url = f"https://carina.example.org:{port}"
    with guarded(tmp_path_factory.mktemp("node"), f'public_url = "{url}"\nproxies = ["127.0.0.1"]\n') as node:
        (folder / "nginx.conf").write_text(_configuration(folder, port, node.url))
        process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")])
        try:
            found = Proxied(guarded=node, url=url, port=port, certificate=folder / "carina.crt")
            _await(found, process)
            yield found
        finally:
            process.terminate()
            process.wait()


def _await(proxied: Proxied, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            assert proxied.client().get("/health/live").status_code == 200
        except httpx.ConnectError:
            time.sleep(0.1)
            continue
        return
    raise AssertionError("nginx ended")


def test_a_log_in_and_a_live_page_through_nginx(proxied: Proxied) -> None:
    browser = proxied.client(Accept="text/html")
    fields = {"token": form_token(browser.get("/login").text), "name": "reader.one"}
    assert browser.post("/login", data=fields | {"password": "not that one"}).status_code == 403
    cookie = browser.post("/login", data=fields | {"password": PASSWORD}).headers["set-cookie"].split(";")[0]
    assert ("reader.one", "refused", f"log-in of reader.one from {CLIENT}") in proxied.guarded.trail()
    watching = {"Accept": "text/event-stream", "Cookie": cookie}
    with browser.stream("GET", "/live", headers=watching) as live:
        parts = live.iter_text()
        assert "Jobs" in next(parts)
        add_job(proxied.guarded.node, pipeline="while-somebody-looks")
        assert any("while-somebody-looks" in part for part in parts)


def test_a_body_without_a_length_is_stored_through_nginx(proxied: Proxied) -> None:
    head = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
    pieces = iter([head + small_ct("1.2.3.1"), head + small_ct("1.2.3.2"), b"\r\n--b--"])
    headers = {
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
        "Authorization": f"Bearer {proxied.guarded.tokens['sender']}",
    }
    answer = proxied.client().post("/dicom-web/studies", content=pieces, headers=headers)
    assert answer.status_code == 200, answer.text
    stored = answer.json()["00081199"]["Value"]
    assert len(stored) == 2
    assert all(one["00081190"]["Value"][0].startswith(f"{proxied.url}/dicom-web/studies/") for one in stored)
    with proxied.guarded.node.engine.connect() as connection:
        last = connection.execute(select(ARRIVAL.c.sender).order_by(ARRIVAL.c.id.desc()).limit(1)).scalar_one()
    assert last == CLIENT
