"""Log-in by OpenID Connect at a real provider on loopback, and what a provider or a stranger may try."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import select, update

from access_nodes import Guarded, guarded
from carina.database import ACCOUNT
from carina.errors import DeliveryFailed
from carina.service.access import oidc
from carina.service.access.oidc import Provider, name_among, role_of
from carina.service.access.roles import Role
from carina.service.problems import Refused
from carina.testing.ports import free_port
from carina.web_settings import OidcSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from oidc_provider_mock import User, run_server_in_thread

PEOPLE_THERE: dict[str, dict[str, object]] = {
    "1": {"preferred_username": "Anna Meyer", "groups": ["staff", "carina-readers"]},
    "2": {"preferred_username": "chief", "groups": ["carina-readers", "carina-admins"]},
    "3": {"preferred_username": "guest", "groups": ["staff"]},
    "4": {"preferred_username": "reader.one", "groups": "carina-admins"},
    "5": {"groups": [["carina-admins"], 7, None]},
    "6": {"preferred_username": "Пётр", "groups": "carina-readers"},
    "7": {"preferred_username": "пётр", "groups": "carina-readers"},
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    users = [User(sub=sub, claims=claims) for sub, claims in PEOPLE_THERE.items()]
    with run_server_in_thread(require_nonce=True, user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@contextmanager
def joined(folder: Path, issuer: str) -> Iterator[Guarded]:
    """A node that lets people in whom a provider vouches for."""
    table = f'[web.oidc]\nissuer = "{issuer}"\nclient_id = "carina"\nclient_secret = "s"\n'
    with guarded(folder, table + 'reader = "carina-readers"\nadmin = "carina-admins"\n') as node:
        yield node


@pytest.fixture
def node(tmp_path: Path, issuer: str) -> Iterator[Guarded]:
    with joined(tmp_path, issuer) as served:
        yield served


def sent_there(client: httpx.Client, to: str = "/") -> str:
    """The address at the provider that the node sends somebody to."""
    answer = client.get("/oidc/start", params={"to": to})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def sent_back(address: str, sub: str) -> str:
    """The address at the node that the provider sends somebody back to."""
    return httpx.post(address, data={"sub": sub}).headers["location"]


def test_a_person_logs_in_elsewhere_and_has_the_role_that_is_given_there(node: Guarded) -> None:
    client = node.person(None)
    page = client.get("/login").text
    assert 'href="/oidc/start?to=/"' in page
    there = sent_there(client, f"/jobs/{node.job}")
    back = sent_back(there, "1")
    answer = client.get(back)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{node.job}")
    assert "anna-meyer, reader" in client.get("/").text
    assert client.get("/users").status_code == 403
    assert client.get(back).status_code == 403
    assert ("anna-meyer", "looked", "worklist") in node.trail()


def test_a_log_in_carries_a_challenge_a_state_and_a_nonce_of_its_own(node: Guarded) -> None:
    asked = [parse_qs(urlsplit(sent_there(node.person(None))).query) for _ in range(2)]
    for name, length in (("code_challenge", 43), ("state", 20), ("nonce", 20)):
        values = [one[name][0] for one in asked]
        assert min(map(len, values)) >= length
        assert values[0] != values[1]
    assert asked[0]["code_challenge_method"] == ["S256"]
    assert asked[0]["redirect_uri"] == [f"{node.url}/oidc/done"]


def test_a_role_that_changes_there_changes_here(node: Guarded) -> None:
    chief = node.person(None)
    chief.get(sent_back(sent_there(chief), "2"))
    assert chief.get("/users").status_code == 200
    with node.node.engine.begin() as connection:
        rows = connection.execute(select(ACCOUNT.c.name, ACCOUNT.c.role).where(ACCOUNT.c.subject != "")).all()
        connection.execute(update(ACCOUNT).where(ACCOUNT.c.name == "chief").values(role=Role.READER))
    assert [tuple(row) for row in rows] == [("chief", "admin")]
    assert chief.get("/users").status_code == 403
    chief.cookies.clear()
    chief.get(sent_back(sent_there(chief), "2"))
    assert chief.get("/users").status_code == 200


@pytest.mark.parametrize(
    ("sub", "status", "words"),
    [
        ("3", 403, "nothing in &#39;groups&#39; lets you in"),
        ("5", 403, "nothing in &#39;groups&#39; lets you in"),
        ("stranger@example.org", 403, "nothing in &#39;groups&#39; lets you in"),
    ],
)
def test_who_has_no_role_here_stays_out(node: Guarded, sub: str, status: int, words: str) -> None:
    client = node.person(None)
    answer = client.get(sent_back(sent_there(client), sub))
    assert (answer.status_code, words in answer.text) == (status, True)
    assert client.get("/").status_code == 303


def test_namesakes_are_told_apart_and_known_by_their_subject(node: Guarded) -> None:
    shown = []
    for sub in ("4", "6", "7", "6"):
        client = node.person(None)
        assert client.get(sent_back(sent_there(client), sub)).status_code == 303
        shown += re.findall(r"[^\s>]+, (?:reader|admin)\b", client.get("/").text)
    assert shown == ["reader.one-2, admin", "пётр, reader", "пётр-2, reader", "пётр, reader"]


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": "Пётр <b>"}, "пётр-b"),
        ({"preferred_username": "José  Núñez"}, "josé-núñez"),
        ({"preferred_username": "Jose\u0301"}, "josé"),
        ({"preferred_username": "\uff21\uff24min"}, "admin"),
        ({"preferred_username": "王芳"}, "王芳"),
        ({"preferred_username": "İpek"}, "i\u0307pek"),
        ({"preferred_username": "अनिता"}, "अनिता"),
        ({"preferred_username": "<->", "email": "O.Neil+ct@example.org"}, "o.neil-ct@example.org"),
        ({"preferred_username": ["x"] * 90}, "x" + "-x" * 31),
        ({"preferred_username": "\u202e", "name": "\n", "sub": "%"}, "somebody"),
        ({"sub": 42}, "42"),
    ],
)
def test_a_name_stays_readable(claims: dict[str, object], name: str) -> None:
    assert name_among(claims) == name


def test_a_closed_account_stays_out(node: Guarded) -> None:
    client = node.person(None)
    client.get(sent_back(sent_there(client), "1"))
    with node.node.engine.begin() as connection:
        connection.execute(update(ACCOUNT).where(ACCOUNT.c.name == "anna-meyer").values(is_closed=1))
    assert client.get("/").status_code == 303
    assert client.get(sent_back(sent_there(client), "1")).status_code == 403


def test_a_log_in_ends_in_the_browser_in_which_it_began(node: Guarded) -> None:
    victim, stranger = node.person(None), node.person(None)
    back = sent_back(sent_there(stranger), "1")
    sent_there(victim)
    answer = victim.get(back)
    assert (answer.status_code, "not begun in this browser" in answer.text) == (403, True)


def test_a_code_that_was_swapped_is_not_taken(node: Guarded) -> None:
    one, two = node.person(None), node.person(None)
    code = parse_qs(urlsplit(sent_back(sent_there(two), "2")).query)["code"][0]
    state = parse_qs(urlsplit(sent_there(one)).query)["state"][0]
    answer = one.get("/oidc/done", params={"code": code, "state": state})
    assert (answer.status_code, "does not log anybody in" in answer.text) == (502, True)
    assert one.get("/").status_code == 303


@pytest.mark.parametrize("query", ["", "?state=x&code=y", "?error=access_denied", "?state="])
def test_an_answer_to_nothing_is_refused(node: Guarded, query: str) -> None:
    assert node.person(None).get(f"/oidc/done{query}").status_code == 403


def test_a_denial_is_said(node: Guarded) -> None:
    client = node.person(None)
    state = parse_qs(urlsplit(sent_there(client)).query)["state"][0]
    answer = client.get("/oidc/done", params={"error": "access_denied", "state": state})
    assert (answer.status_code, "access_denied" in answer.text) == (403, True)


def settings(issuer: str, admin: str = "", reader: str = "") -> OidcSettings:
    return OidcSettings(issuer=issuer, client_id="carina", client_secret="s", admin=admin, reader=reader)


def test_a_provider_that_is_silent_or_another_one_is_said(issuer: str) -> None:
    with pytest.raises(DeliveryFailed, match="does not log anybody in"):
        Provider(settings(f"http://127.0.0.1:{free_port()}")).start("http://x/oidc/done", "/")
    with pytest.raises(DeliveryFailed, match="it calls itself 'http://127"):
        Provider(settings(issuer.replace("localhost", "127.0.0.1") + "/")).start("http://x/oidc/done", "/")


def test_an_id_token_for_somebody_else_is_not_taken(issuer: str) -> None:
    back = "http://127.0.0.1:1/oidc/done"
    provider = Provider(settings(issuer, admin="carina-admins"))
    address, state = provider.start(back, "/")
    answer = sent_back(address, "2")
    attempt = provider._waiting[state]
    provider._waiting[state] = oidc.PendingLogIn(
        verifier=attempt.verifier, nonce="another", to="/", began_s=attempt.began_s
    )
    with pytest.raises(DeliveryFailed, match="nonce"):
        provider.finish(back, state, answer)


def test_a_log_in_that_takes_too_long_begins_again(issuer: str) -> None:
    now = [0.0]
    provider = Provider(settings(issuer, admin="carina-admins"), clock_s=lambda: now[0])
    address, state = provider.start("http://127.0.0.1:1/oidc/done", "/")
    answer = sent_back(address, "2")
    now[0] = 601.0
    with pytest.raises(Refused, match="took too long"):
        provider.finish("http://127.0.0.1:1/oidc/done", state, answer)


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"groups": ["a", "r"]}, Role.ADMIN),
        ({"groups": "r"}, Role.READER),
        ({"groups": ["o"]}, None),
        ({"groups": [""]}, None),
        ({"groups": ""}, None),
        ({}, None),
    ],
)
def test_the_highest_role_of_a_claim_counts_and_an_empty_group_is_nobodys(
    claims: dict[str, object], role: Role | None
) -> None:
    assert role_of(claims, settings("http://x", admin="a", reader="r")) is role
