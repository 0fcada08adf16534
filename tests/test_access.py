"""Logging in and out, links, tokens, sessions that end, forms of strangers, and the trail that all of it leaves."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from access_nodes import PASSWORD, Guarded, account, form_token, guarded
from carina.config import load_settings
from carina.database import ACCOUNT, SESSION, TOKEN
from carina.service.access import credentials
from carina.service.access.accounts import first_link
from carina.service.access.roles import Role
from carina.service.access.throttle import LONGEST_WAIT_S, Throttle
from carina.service.check import check_across
from carina.service.problems import as_sentence
from carina.service.serve import first_invitation
from served_nodes import settings_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    with guarded(tmp_path) as served:
        yield served


def log_in(client: httpx.Client, name: str, password: str, to: str = "/") -> httpx.Response:
    token = form_token(client.get("/login").text)
    return client.post("/login", data={"token": token, "name": name, "password": password, "to": to})


def press(client: httpx.Client, **fields: object) -> httpx.Response:
    token = form_token(client.get("/users").text)
    return client.post("/users/act", data={"token": token, **{name: str(value) for name, value in fields.items()}})


def test_a_page_leads_to_the_log_in_and_back(node: Guarded) -> None:
    client = node.person(None)
    sent = client.get(f"/jobs/{node.job}?x=1")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/login?to=%2Fjobs%2F{node.job}%3Fx%3D1")
    answer = log_in(client, " Reader.One ", PASSWORD, f"/jobs/{node.job}?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{node.job}?x=1")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "domain" not in cookie
    page = client.get(f"/jobs/{node.job}")
    assert page.status_code == 200
    assert "reader.one, reader" in page.text
    assert ("reader.one", "looked", f"job {node.job}") in node.trail()
    assert any(who == "reader.one" and action == "logged-in" for who, action, _ in node.trail())


@pytest.mark.parametrize(
    ("name", "password"), [("reader.one", "wrong"), ("nobody", PASSWORD), ("", ""), ("é" * 70, "x")]
)
def test_what_does_not_fit_is_said_in_the_same_words(node: Guarded, name: str, password: str) -> None:
    client = node.person(None)
    answer = log_in(client, name, password)
    assert answer.status_code == 403
    assert "Name and password don&#39;t fit" in answer.text
    assert "set-cookie" not in answer.headers
    assert client.get("/").status_code == 303


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example/", "/\\evil.example", "/\nx", "javascript:x"])
def test_a_log_in_leads_to_this_node_only(node: Guarded, to: str) -> None:
    assert log_in(node.person(None), "reader.one", PASSWORD, to).headers["location"] == "/"


def test_a_closed_account_and_a_password_that_is_none_open_nothing(node: Guarded) -> None:
    account(node.node, "fresh", Role.READER)
    assert log_in(node.person(None), "fresh", "").status_code == 403
    with node.node.engine.begin() as connection:
        connection.execute(update(ACCOUNT).where(ACCOUNT.c.name == "reader.one").values(is_closed=1))
    assert log_in(node.person(None), "reader.one", PASSWORD).status_code == 403
    assert node.person("reader").get("/").status_code == 303


def test_failures_make_the_next_try_wait_whatever_password_it_has(
    node: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "carina.service.access.routes.is_password", lambda given, kept: given == PASSWORD and bool(kept)
    )
    client = node.person(None)
    for _ in range(5):
        assert log_in(client, "reader.one", "wrong").status_code == 403
    answer = log_in(client, "reader.one", PASSWORD)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert log_in(client, "operator.one", PASSWORD).status_code == 303


def test_pauses_double_are_bounded_and_forgotten() -> None:
    now = [0.0]
    throttle = Throttle(free=3, clock_s=lambda: now[0])
    waits = []
    for _ in range(20):
        throttle.failed("x")
        waits.append(throttle.wait_s("x"))
    assert waits[:7] == [0, 0, 1, 2, 4, 8, 16]
    assert waits[-1] == LONGEST_WAIT_S
    assert throttle.wait_s("y") == 0
    now[0] += 4000
    throttle.failed("x")
    assert throttle.wait_s("x") == 0
    throttle.succeeded("x")
    for number in range(30_000):
        throttle.failed(str(number))
    assert len(throttle._failures) == 20_000


def test_a_session_ends_after_a_while_without_a_request(node: Guarded) -> None:
    client = node.person("reader")
    for _ in range(3):
        node.clock.wait(minutes=29)
        assert client.get("/").status_code == 200
    node.clock.wait(minutes=31)
    assert client.get("/").status_code == 303


def test_a_session_ends_after_a_day_of_work(node: Guarded) -> None:
    client = node.person("reader")
    for _ in range(30):
        node.clock.wait(minutes=24)
        client.get("/")
    assert client.get("/").status_code == 200
    node.clock.wait(minutes=1)
    assert client.get("/").status_code == 303


def test_logging_out_ends_the_session_for_good(node: Guarded) -> None:
    client = node.person("reader")
    kept = dict(client.cookies)
    answer = client.post("/logout", data={"token": form_token(client.get("/").text)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert httpx.get(node.url + "/", cookies=kept).status_code == 401
    assert ("reader.one", "logged-out", "") in node.trail()


def test_a_change_of_role_holds_at_once(node: Guarded) -> None:
    client = node.person("operator")
    assert client.get("/users").status_code == 403
    account_id = account_id_of(node, "operator.one")
    assert press(node.person("admin"), what="role", id=account_id, choice="admin").status_code == 303
    assert client.get("/users").status_code == 200
    press(node.person("admin"), what="role", id=account_id, choice="reader")
    assert client.get("/users").status_code == 403
    press(node.person("admin"), what="close", id=account_id)
    assert client.get("/").status_code == 303


def account_id_of(node: Guarded, name: str) -> int:
    with node.node.engine.connect() as connection:
        return int(connection.execute(select(ACCOUNT.c.id).where(ACCOUNT.c.name == name)).scalar_one())


@pytest.mark.parametrize("what", ["close", "role"])
def test_the_last_administrator_stays(node: Guarded, what: str) -> None:
    answer = press(node.person("admin"), what=what, id=account_id_of(node, "admin.one"), choice="reader")
    assert answer.status_code == 409
    assert "is the last administrator who can log in" in answer.text


def invite(node: Guarded, name: str, role: str) -> str:
    """Add somebody; gives the path of their link."""
    page = press(node.person("admin"), what="add", name=name, choice=role)
    link = page.text.split('id="shown"')[1].split(">")[1].split("<")[0]
    assert link.startswith(f"{node.url}/invited?link=")
    return link.removeprefix(node.url)


@pytest.mark.parametrize(
    ("password", "again", "words"),
    [
        ("short", "short", "the password is too short: it has 5 characters"),
        (PASSWORD, "another", "the two passwords are not the same"),
        ("short", "another", "the two passwords are not the same"),
        ("short", "another", "the password is too short: it has 5 characters"),
    ],
)
def test_a_password_that_is_none_is_not_taken(node: Guarded, password: str, again: str, words: str) -> None:
    where, new = invite(node, "new.person", "reader"), node.person(None)
    fields = {"token": form_token(new.get(where).text), "link": where.partition("link=")[2]}
    answer = new.post("/invited", data={**fields, "password": password, "again": again})
    assert answer.status_code == 400
    assert as_sentence(words) in answer.text
    assert new.get("/").status_code == 303


def test_an_invited_person_chooses_a_password_once(node: Guarded) -> None:
    where, new = invite(node, "New.Person", "operator"), node.person(None)
    assert 'id="shown"' not in node.person("admin").get("/users").text
    form = new.get(where)
    assert "new.person" in form.text
    fields = {"token": form_token(form.text), "link": where.partition("link=")[2]}
    assert new.post("/invited", data={**fields, "password": PASSWORD, "again": PASSWORD}).status_code == 303
    assert "new.person, operator" in new.get("/").text
    assert new.get(where).status_code == 403
    again = node.person(None).post("/invited", data={**fields, "password": "x" * 20, "again": "x" * 20})
    assert (again.status_code, "ask an administrator" in again.text) == (403, True)
    assert log_in(node.person(None), "new.person", PASSWORD).status_code == 303
    assert [one for one in node.trail() if "new.person" in one[0] + one[2]] == [
        ("admin.one", "changed", f"account {account_id_of(node, 'new.person')} (new.person): made, operator"),
        ("new.person", "changed", f"account {account_id_of(node, 'new.person')}: password set by link"),
        ("new.person", "logged-in", f"account {account_id_of(node, 'new.person')}"),
        ("new.person", "looked", "worklist"),
        ("new.person", "logged-in", f"account {account_id_of(node, 'new.person')}"),
    ]


def test_a_link_is_too_old_after_a_day_and_replaced_by_the_next(node: Guarded) -> None:
    admin = node.person("admin")
    links = []
    for _ in range(2):
        page = press(admin, what="link", id=account_id_of(node, "reader.one")).text
        links.append(page.split('id="shown"')[1].split(">")[1].split("<")[0])
    assert [node.person(None).get(link).status_code for link in links] == [403, 200]
    node.clock.wait(hours=24, seconds=1)
    assert node.person(None).get(links[1]).status_code == 403


@pytest.mark.parametrize("link", ["", "x", "é" * 50, "%00", "x" * 5000])
def test_a_link_that_is_none_is_refused(node: Guarded, link: str) -> None:
    assert node.person(None).get("/invited", params={"link": link}).status_code == 403


def test_the_first_link_makes_the_first_administrator(tmp_path: Path) -> None:
    with guarded(tmp_path) as node:
        with node.node.engine.begin() as connection:
            assert first_link(connection, node.clock.at) is None
            connection.execute(update(ACCOUNT).where(ACCOUNT.c.name == "admin.one").values(is_closed=1))
        assert first_invitation(node.node) is not None
        link = first_invitation(node.node)
        assert link is not None
        client = node.person(None)
        token, secret = form_token(client.get(link).text), link.partition("link=")[2]
        fields = {"token": token, "link": secret, "password": PASSWORD, "again": PASSWORD}
        taken = client.post("/invited", data={**fields, "name": "reader.one"})
        assert (taken.status_code, "already" in taken.text) == (409, True)
        bad = client.post("/invited", data={**fields, "name": "a b"})
        assert (bad.status_code, "is no name" in bad.text) == (400, True)
        assert client.post("/invited", data={**fields, "name": "Chief"}).status_code == 303
        assert client.get("/users").status_code == 200
        assert first_invitation(node.node) is None


def test_tokens_are_shown_by_bearer_and_basic_and_count_until_revoked(node: Guarded) -> None:
    admin = node.person("admin")
    page = press(admin, what="token", name="pacs", choice="reader").text
    secret = page.split('id="shown"')[1].split(">")[1].split("<")[0]
    basic = "Basic " + base64.b64encode(f"anything:{secret}".encode()).decode()
    for shown in (f"Bearer {secret}", f"bearer {secret}", basic):
        assert httpx.get(f"{node.url}/api/v1/jobs", headers={"authorization": shown}).status_code == 200
    assert ("token pacs", "looked", "list of jobs") in node.trail()
    with node.node.engine.connect() as connection:
        row = connection.execute(select(TOKEN).where(TOKEN.c.name == "pacs")).one()
    assert secret not in str(tuple(row))
    assert press(admin, what="revoke", id=row.id).status_code == 303
    assert httpx.get(f"{node.url}/api/v1/jobs", headers={"authorization": basic}).status_code == 401


@pytest.mark.parametrize(
    "shown",
    ["Bearer", "Bearer x", "Basic", "Basic %%", "Basic eDp5", "Digest x", "x", "Basic " + "A" * 5000],
)
def test_a_token_that_is_none_is_refused_even_beside_a_session(node: Guarded, shown: str) -> None:
    cookies = dict(node.person("admin").cookies)
    answer = httpx.get(f"{node.url}/api/v1/jobs", headers={"authorization": shown}, cookies=cookies)
    assert (answer.status_code, "the token is not known here" in answer.text) == (401, True)


@pytest.mark.parametrize("name", ["sender", "sender of default"])
def test_a_sender_stores_and_sees_nothing(node: Guarded, name: str) -> None:
    sender = node.program(name)
    answer = sender.post("/dicom-web/studies", content=b"x", headers={"content-type": "text/plain"})
    assert answer.status_code in (400, 415)
    assert sender.get("/dicom-web/studies").status_code == 403
    assert "has the role " + name.replace(" of", " in project") in sender.get("/api/v1/jobs").json()["detail"]
    assert node.program("reader").post("/dicom-web/studies", content=b"x").status_code == 403


def test_no_secret_is_kept(node: Guarded) -> None:
    with node.node.engine.connect() as connection:
        kept = "".join(
            str(tuple(row)) for table in (ACCOUNT, SESSION, TOKEN) for row in connection.execute(select(table))
        )
    for secret in (PASSWORD, *node.cookies.values(), *node.tokens.values()):
        assert secret not in kept
    assert "$argon2id$" in kept


def cancel(client: httpx.Client, job: int, token: str, **headers: str) -> int:
    return client.post("/act", data={"token": token, "what": "cancel", "id": str(job)}, headers=headers).status_code


def test_a_form_is_taken_with_its_own_token_only(node: Guarded) -> None:
    operator, other = node.person("operator"), node.person("admin")
    token = form_token(operator.get("/").text)
    assert cancel(operator, node.job, form_token(other.get("/users").text)) == 403
    assert cancel(operator, node.job, node.node.token) == 403
    assert cancel(operator, node.job, "") == 403
    assert cancel(operator, node.job, token, origin="https://evil.example") == 403
    assert cancel(operator, node.job, token, **{"sec-fetch-site": "cross-site"}) == 403
    assert cancel(operator, node.job, token, **{"sec-fetch-site": "same-site"}) == 403
    assert cancel(operator, node.job, token) == 409


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data; boundary=x", ""])
def test_a_body_that_is_no_form_needs_the_token_or_the_browsers_word(node: Guarded, kind: str) -> None:
    operator, path = node.person("operator"), f"/api/v1/jobs/{node.job}/cancel"
    token = form_token(operator.get("/").text)
    headers = {"content-type": kind} if kind else {}
    assert operator.post(path, content=b"{}", headers=headers).status_code == 403
    assert operator.post(path, content=b"{}", headers={**headers, "x-csrf-token": "wrong"}).status_code == 403
    assert operator.post(path, content=b"{}", headers={**headers, "x-csrf-token": token}).status_code == 409
    assert operator.post(path, content=b"{}", headers={**headers, "sec-fetch-site": "same-origin"}).status_code == 409
    assert node.program("operator").post(path, content=b"{}", headers=headers).status_code == 409


def test_a_form_without_end_is_refused(node: Guarded) -> None:
    answer = node.person("operator").post("/act", data={"token": "x" * 100_000})
    assert answer.status_code == 403


def test_a_log_in_from_another_page_is_refused(node: Guarded) -> None:
    client = node.person(None)
    token = form_token(client.get("/login").text)
    fields = {"token": token, "name": "reader.one", "password": PASSWORD}
    assert client.post("/login", data=fields, headers={"origin": "https://evil.example"}).status_code == 403
    assert client.post("/login", data={**fields, "token": "x"}).status_code == 403


def test_a_reader_sees_no_button_of_an_operator(node: Guarded) -> None:
    for path in ("/", f"/jobs/{node.job}"):
        assert 'action="/act"' not in node.person("reader").get(path).text
    assert 'action="/act"' in node.person("operator").get("/").text
    assert 'href="/users"' not in node.person("operator").get("/").text


def test_changes_are_noted_under_the_name_of_who_made_them(node: Guarded) -> None:
    operator = node.program("operator")
    operator.post("/api/v1/deliveries/resend", json={})  # nothing has failed
    operator.post("/api/v1/uploads", json={"key": "k", "files": 1, "bytes": 1})
    who, action, subject = node.trail()[-1]
    assert (who, action) == ("token operator.program", "received") and subject.endswith(": begun, 1 file, 1 bytes")
    assert not any("sent again" in subject for _, _, subject in node.trail())


def test_whoever_keeps_looking_is_noted_once_a_minute_and_each_person(node: Guarded) -> None:
    for role in ("reader", "reader", "admin", "reader"):
        assert node.person(role).get(f"/jobs/{node.job}").status_code == 200
    looked = [who for who, action, subject in node.trail() if (action, subject) == ("looked", f"job {node.job}")]
    assert looked == ["reader.one", "admin.one"]


def test_what_was_not_shown_is_not_noted(node: Guarded) -> None:
    before = node.trail()
    for path in ("/jobs/99", "/jobs/99/view/", "/dicom-web/studies/1.2.3", "/?state=nope"):
        assert node.person("reader").get(path).status_code in (400, 404)
    assert node.trail() == before


@pytest.mark.parametrize(
    ("web", "words"),
    [
        ('host = "0.0.0.0"', "expected login = true and [web.tls]"),
        ('host = "0.0.0.0"\nlogin = true', "expected login = true and [web.tls]"),
        ('host = "0.0.0.0"\n[web.tls]\ncertificate = "x"\nkey = "x"', "expected login = true and [web.tls]"),
        ('host = "0.0.0.0"\nlogin = true\n[web.tls]\ncertificate = "x"\nkey = "x"', "names by which browsers call"),
        ('[web.oidc]\nissuer = "https://x"\nclient_id = "c"', "web.oidc: is there and login is false"),
    ],
)
def test_it_refuses_to_listen_elsewhere_without_tls_and_log_in(tmp_path: Path, web: str, words: str) -> None:
    settings_of(tmp_path)
    file = tmp_path / "carina.toml"
    keys, mark, tables = web.partition("[")
    file.write_text(file.read_text().replace("[web]\n", f"[web]\n{keys}\n") + mark + tables)
    found = [f"{'.'.join(one.key)}: {one.words}" for one in check_across(load_settings(file, {}))]
    assert any(words in one for one in found), found


@pytest.mark.parametrize("password", ["x" * 11, "x" * 257, ""])
def test_a_password_has_its_length(password: str) -> None:
    with pytest.raises(Exception, match=f"has {len(password)} characters; expected at least 12 and at most 256"):
        credentials.hash_password(password)


def test_a_password_is_the_same_from_any_keyboard() -> None:
    kept = credentials.hash_password("Ångström über alles")
    assert credentials.is_password("Ångström über alles", kept)
    assert not credentials.is_password("Ångström uber alles", kept)
    assert not credentials.is_password("x", "no hash at all")
