"""Every route of the node, found by looking: refused to strangers and lesser roles, noted where it shows data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.routing import BaseRoute, Mount, Route, Router

from access_nodes import MACHINE, Guarded, guarded
from carina.service.access.roles import MAY, PEOPLE, PROGRAMS, Need
from carina.service.access.rules import PROGRAM_PATHS, ROUTE_RULES, Rule, rules_of
from carina.service.app import all_routes
from carina.service.headers import HEADERS
from carina.service.pages import results
from carina.web_settings import DEFAULT_PROJECT

OPEN = {
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/static/{path:path}"),
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/invited"),
    ("GET", "/oidc/start"),
    ("GET", "/oidc/done"),
    ("POST", "/invited"),
    ("POST", "/logout"),
}
"""What whoever is not logged in needs; nothing of it shows anything of a patient."""

SAMPLES = {"job": "1", "index": "1", "z": "1", "y": "2", "x": "3", "id": "1", "number": "1"}


LATE: list[tuple[object, Callable[[], Router]]] = [
    (results.results, results._viewer),
    (results.agreements, results._agreements),
]
"""Applications whose routes are made when somebody first asks for one."""


def routes_of(routes: list[BaseRoute], above: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, also of those that are mounted; files of a folder as one."""
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, above + route.path) for method in sorted((route.methods or set()) - {"HEAD"}))
        elif isinstance(route, Mount):
            path = above + route.path
            inner = next((make().routes for app, make in LATE if app is route.app), route.routes)
            yield from routes_of(list(inner), path) if inner else [("GET", path + "/{path:path}")]
        else:
            raise AssertionError(f"a kind of route that this test doesn't know: {route}")


ROUTES = list(routes_of(all_routes()))


def sample(path: str, **values: str) -> str:
    """A path that a route takes."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: (SAMPLES | values).get(found[1], "a"), path)


def misspelt(path: str) -> tuple[str, ...]:
    """A path with slashes too many or too few at its end, as no route has it."""
    more = (path + "/", path + "//")
    if path == "/":
        return ()
    return (*more, path.rstrip("/")) if path.endswith("/") else more


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("guarded")) as served:
        yield served


def rule_of(route: tuple[str, str]) -> Rule:
    method, path = route
    return rules_of(sample(path))[method]


def test_routes_are_found_and_each_has_a_line_of_its_own() -> None:
    assert len(ROUTES) >= 60
    assert sorted(ROUTES) == sorted((rule.method, rule.path) for rule in ROUTE_RULES)


def test_a_route_without_a_line_would_be_seen() -> None:
    async def new(_: object) -> None: ...

    found = list(routes_of([*all_routes(), Route("/new", new), Mount("/more", routes=[Route("/one", new)])]))
    assert set(found) - set(ROUTES) == {("GET", "/new"), ("GET", "/more/one")}
    assert rules_of("/new") == {}


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_the_line_of_a_route_is_the_one_that_its_requests_meet(route: tuple[str, str]) -> None:
    assert (rule_of(route).method, rule_of(route).path) == route


def ask(client: httpx.Client, route: tuple[str, str]) -> httpx.Response:
    method, path = route
    with client.stream(method, sample(path), headers={"sec-fetch-site": "same-origin"}) as answer:
        if answer.status_code >= 400 or "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        return answer


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_nobody_gets_past_the_log_in(node: Guarded, route: tuple[str, str]) -> None:
    before = node.trail()
    page, call = ask(node.person(None), route), ask(node.program(None), route)
    is_page = route[0] == "GET" and not route[1].startswith(PROGRAM_PATHS)
    if route in OPEN:
        assert {page.status_code, call.status_code}.isdisjoint({401})
        return
    assert (call.status_code, call.headers["www-authenticate"][:21]) == (401, 'Bearer realm="carina"')
    assert page.status_code == (303 if is_page else 401)
    assert page.headers.get("location", "").startswith("/login?to=%2F" if is_page else "")
    assert node.trail() == before


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_each_role_gets_what_it_may_and_nothing_else(node: Guarded, route: tuple[str, str]) -> None:
    need = rule_of(route).need
    for role in PEOPLE:
        if need not in MAY[role]:
            answer = ask(node.person(role), route)
            assert answer.status_code == 403, role
            assert "this needs the role" in answer.text.lower()
    for role in PROGRAMS:
        if need not in MAY[role]:
            for program in (role, f"{role} of {DEFAULT_PROJECT}"):
                assert ask(node.program(program), route).status_code == 403, program


@pytest.mark.parametrize("route", [one for one in ROUTES if one[0] == "GET"], ids=" ".join)
def test_a_reader_reads(node: Guarded, route: tuple[str, str]) -> None:
    if rule_of(route).need is Need.READ:
        answer = ask(node.person("reader"), route)
        assert answer.status_code not in (401, 403, 405)
        said = answer.text if answer.is_stream_consumed else ""  # of a live part: its page tells the same
        assert str(node.node.folder) not in said and MACHINE not in said and "SCANNER@" not in said


def test_who_operates_sees_where_a_job_ran_and_what_on(node: Guarded) -> None:
    for path in (f"/api/v1/jobs/{node.job}", "/api/v1/jobs"):
        assert MACHINE in node.person("operator").get(path).text, path
        assert MACHINE not in node.person("reader").get(path).text, path


UNSEEN = {
    "/account",
    "/api/v1/state",
    "/api/v1/destinations",
    "/api/v1/openapi.json",
    "/api/v1/uploads/{id}",
    "/api",
    "/metrics",
}
"""Read by those who may, and of no patient but those whose files they send themselves."""


def test_whatever_shows_patients_has_its_words_in_the_trail() -> None:
    for rule in ROUTE_RULES:
        is_shown = rule.method == "GET" and rule.need in (Need.READ, Need.OPERATE)
        is_of_patients = is_shown and rule.path not in UNSEEN and "/static/" not in rule.path
        assert bool(rule.view) == is_of_patients, rule.path


def test_headers_are_on_every_answer_also_of_errors(node: Guarded) -> None:
    for path in ("/", "/nope", "/login", "/health/live", "/jobs/99", "/api/v1/jobs/x", "/invited?link=x"):
        for client in (node.person(None), node.person("admin"), node.program("sender")):
            answer = client.get(path)
            for name in HEADERS:
                assert name in answer.headers, (path, name)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_another_method_is_no_way_in(node: Guarded, method: str) -> None:
    assert node.person(None).request(method, "/").status_code == 401
    answer = node.person("admin").request(method, "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


SLASHED = [(route, path) for route in ROUTES for path in misspelt(sample(route[1]))]


OF_THE_SLASHED = pytest.mark.parametrize(
    ("route", "path"), SLASHED, ids=lambda one: one if isinstance(one, str) else " ".join(one)
)
BY_A_PAGE = {"sec-fetch-site": "same-origin"}


@OF_THE_SLASHED
def test_a_slash_too_many_or_too_few_leads_to_the_right_address(
    node: Guarded, route: tuple[str, str], path: str
) -> None:
    before = node.trail()
    for client in (node.person("admin", **BY_A_PAGE), node.program("sender")):
        answer = client.request(route[0], path)
        assert answer.status_code in (307, 403, 404, 405), answer.text
        led_to = urlsplit(answer.headers.get("location", sample(route[1]))).path
        assert led_to == sample(route[1])
    assert node.trail() == before


@OF_THE_SLASHED
def test_a_slash_too_many_or_too_few_is_no_way_in(node: Guarded, route: tuple[str, str], path: str) -> None:
    if route not in OPEN:
        assert node.person(None, **BY_A_PAGE).request(route[0], path).status_code in (303, 401)
        assert node.program(None).request(route[0], path).status_code == 401
    rules = rules_of(path)
    need = rules[route[0]].need if route[0] in rules else Need.READ
    for role in PEOPLE:
        if need not in MAY[role]:
            assert node.person(role, **BY_A_PAGE).request(route[0], path).status_code == 403, role


@pytest.mark.parametrize("path", ["//", "/./", "/jobs//1", "/static/../jobs/1", "/static/%2e%2e/routes.py", "/JOBS/1"])
def test_another_spelling_is_no_way_in(node: Guarded, path: str) -> None:
    connection = httpx.Client()
    answer = connection.send(httpx.Request("GET", httpx.URL(node.url).copy_with(raw_path=path.encode())))
    assert answer.status_code in (401, 404)
    assert "def " not in answer.text


NUMBERED = [rule for rule in ROUTE_RULES if ":int}" in rule.path or "{id}" in rule.path]


@pytest.mark.parametrize("number", ["9" * 18, "9" * 19, str(2**63), "12345678901234567890", "9" * 27, "9" * 5000])
@pytest.mark.parametrize("rule", NUMBERED, ids=lambda rule: f"{rule.method} {rule.path}")
def test_a_number_that_no_row_can_have_is_not_there(node: Guarded, rule: Rule, number: str) -> None:
    for name in re.findall(r"\{(\w+):int\}|\{(id)\}", rule.path):
        numbers = {key: number for key in name if key} | {"job": number if "job" in name else str(node.job)}
        path = sample(rule.path, **numbers)
        answer = node.person("admin", accept="*/*", **{"sec-fetch-site": "same-origin"}).request(rule.method, path)
        is_understood_first = path.startswith("/api/") or rule.method == "POST"
        assert answer.status_code in ((400, 404) if is_understood_first else (404,)), answer.text
