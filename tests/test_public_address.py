"""A node behind a proxy that ends TLS: what it writes is of the address at the proxy, and who is believed is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from access_nodes import PASSWORD, Guarded, form_token, guarded
from carina.config import load_settings
from carina.database import ARRIVAL
from carina.errors import BadConfig
from carina.service.check import check_across
from carina.service.guard import Guard
from carina.service.serve import url_of
from carina.web_settings import WebSettings
from received_files import small_ct

PUBLIC = "https://carina.example.org"
LIES = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "99",
    "Forwarded": "proto=https;host=evil.example",
}


@pytest.fixture(scope="module", params=["believed", "not believed"])
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A node with a public address, whose proxy on this machine is believed, or another one is."""
    proxy = "127.0.0.1" if request.param == "believed" else "192.0.2.1"
    more = f'public_url = "{PUBLIC}/"\nproxies = ["{proxy}"]\n'
    with guarded(tmp_path_factory.mktemp("guarded"), more) as served:
        yield served


def is_believed(node: Guarded) -> bool:
    return node.node.settings.web.proxies == ("127.0.0.1",)


def addresses(node: Guarded, path: str, **headers: str) -> set[str]:
    """Where the addresses in a DICOM JSON answer begin: those of DICOMweb's root."""
    client = node.program("reader")
    answer = client.get(path, headers={"Accept": "application/dicom+json", **headers})
    assert answer.status_code == 200, answer.text
    found: set[str] = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            found.update(str(one) for one in value.get("00081190", {}).get("Value", []))
            found.update([value["BulkDataURI"]] if "BulkDataURI" in value else [])
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(inner)

    look(json.loads(answer.content))
    return {address.partition("/dicom-web")[0] for address in found}


@pytest.mark.parametrize("host", ["carina.example.org", "CARINA.example.org", "carina.example.org:443"])
@pytest.mark.parametrize("path", ["/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances"])
def test_addresses_are_those_at_the_proxy(node: Guarded, host: str, path: str) -> None:
    assert addresses(node, path, Host=host) == {f"https://{host}"}


def test_bulk_data_is_at_the_proxy(node: Guarded) -> None:
    (study,) = node.program("reader").get("/dicom-web/studies").json()
    path = f"/dicom-web/studies/{study['0020000D']['Value'][0]}/metadata"
    assert addresses(node, path, Host="carina.example.org") == {PUBLIC}
    assert addresses(node, path) == {node.url}


def test_who_calls_the_node_itself_gets_its_own_address(node: Guarded) -> None:
    assert addresses(node, "/dicom-web/studies") == {node.url}


def test_headers_of_strangers_lead_nowhere_else(node: Guarded) -> None:
    scheme = "https" if is_believed(node) else "http"
    own = node.url.replace("http:", f"{scheme}:")
    assert addresses(node, "/dicom-web/studies", **LIES) == {own}
    assert addresses(node, "/dicom-web/studies", **LIES, Host="carina.example.org") == {PUBLIC}
    refused = node.program("reader").get("/dicom-web/studies", headers={"Host": "evil.example"})
    assert refused.status_code == 421


def test_what_is_stored_is_said_to_be_at_the_proxy_and_who_sent_it_is_who_the_proxy_says(node: Guarded) -> None:
    body = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + small_ct("1.2.3.1") + b"\r\n--b--"
    headers = {
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
        "Host": "carina.example.org",
        "X-Forwarded-For": "203.0.113.9, 192.0.2.77",
    }
    answer = node.program("sender").post("/dicom-web/studies", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081190"]["Value"][0].startswith(f"{PUBLIC}/dicom-web/studies/")
    with node.node.engine.connect() as connection:
        last = connection.execute(select(ARRIVAL.c.sender).order_by(ARRIVAL.c.id.desc()).limit(1)).scalar_one()
    assert last == ("192.0.2.77" if is_believed(node) else "127.0.0.1")


def test_a_log_in_at_the_proxy_has_a_cookie_of_tls(node: Guarded) -> None:
    at_proxy = {"Host": "carina.example.org", "Origin": PUBLIC, "Accept": "text/html"}
    browser = httpx.Client(base_url=node.url, headers=at_proxy)
    fields = {"token": form_token(browser.get("/login").text), "name": "reader.one", "password": PASSWORD}
    cookie = browser.post("/login", data=fields).headers["set-cookie"]
    assert cookie.startswith("__Host-carina=") and "Secure" in cookie.split("; ")
    elsewhere = at_proxy | {"Origin": "https://evil.example"}
    assert browser.post("/login", data=fields, headers=elsewhere).status_code == 403


@pytest.mark.parametrize(
    ("public", "host", "is_public"),
    [
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("https://a.example", "a.example:80", False),
        ("https://a.example:8443", "a.example:8443", True),
        ("https://a.example:8443", "a.example", True),
        ("https://a.example:8443", "a.example:443", False),
        ("http://127.0.0.1:3000", "127.0.0.1:8042", False),
        ("https://a.example", "a.example:x", False),
        ("https://a.example", "b.example", False),
        ("", "a.example", False),
        ("https://[::1]", "[::1]", True),
        ("https://a.example", "[", False),
    ],
)
def test_a_request_is_public_by_name_and_port(public: str, host: str, *, is_public: bool) -> None:
    async def nothing(*_: object) -> None:
        """An application that answers nothing."""

    assert Guard(nothing, hosts=frozenset(), public_url=public)._is_public(host) is is_public


def test_the_first_link_leads_to_the_proxy() -> None:
    assert url_of(WebSettings(public_url=PUBLIC)) == f"{PUBLIC}/"


@pytest.mark.parametrize("url", ["carina.example.org", "https://a.example/carina", "https://u@a.example", "ftp://a"])
def test_a_public_address_is_the_root_of_a_name(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadConfig, match=r"web\.public_url"):
        load_settings(None, {"CARINA_WEB_PUBLIC_URL": url})


def test_a_public_address_needs_a_log_in_and_proxies_are_addresses() -> None:
    web = WebSettings(public_url=PUBLIC, proxies=("*", "127.0.0.1", "192.0.2.0/24", "proxy"))
    settings = load_settings(None, {})
    told = {mistake.key: mistake.words for mistake in check_across(type(settings)(web=web), is_running=True)}
    assert "nobody has to log in; expected login = true" in told["web", "public_url"]
    assert told["web", "proxies"].startswith("'proxy' is no address or network")
    local = type(settings)(web=WebSettings(public_url="http://127.0.0.1:3000"))
    assert [one.key for one in check_across(local, is_running=True)] == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://a.example:99999", "is no address of a server (Port out of range 0-65535)"),
        ("https://a.example:abc", "is no address of a server (Port could not be cast"),
        ("https://a.example:", "is no address of a server (the port is empty or 0)"),
        ("https://a.example:0", "is no address of a server (the port is empty or 0)"),
        ("https://[foo", "is no address of a server (Invalid IPv6 URL)"),
        ("https://:8443", "is no address of a server (no host is named)"),
        ("https://a.example.", "ends in a dot, as no browser names it"),
        ("http://a.example", "is plain HTTP, by which passwords can be read on their way; expected https://"),
    ],
)
def test_a_public_address_that_no_browser_reaches_well_is_a_mistake(url: str, words: str) -> None:
    settings = type(load_settings(None, {}))(web=WebSettings(public_url=url, login=True))
    (mistake,) = check_across(settings, is_running=True)
    assert mistake.key == ("web", "public_url") and mistake.words.startswith(f"{url!r} {words}")


@pytest.mark.parametrize("proxy", ["0.0.0.0/0", "::/0"])
def test_not_everybody_is_believed(proxy: str) -> None:
    settings = type(load_settings(None, {}))(web=WebSettings(proxies=(proxy,)))
    (mistake,) = check_across(settings, is_running=True)
    assert mistake.key == ("web", "proxies") and "name proxies one by one" in mistake.words
