"""The same header on every page of a node: where one can go, who is logged in, and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from access_nodes import Guarded, form_token, guarded
from carina.service.viewer.server import run_app
from served_nodes import opened, serving
from test_viewer_browser import opened as opened_page
from viewer_runs import posed, served, write_run

OF_A_RUN = ("", "report", "changes", "correct/lesion", "correct/lung", "files", "pdf/none.pdf")
OF_THE_NODE = ("/", "/projects", "/projects/default", "/agreement/", "/api", "/users", "/account", "/jobs/1")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("header")) as found:
        write_run(posed("plain", (24, 48, 48)), found.node.folder / "runs" / str(found.job))
        yield found


def every_page(job: int) -> list[str]:
    return [*OF_THE_NODE, *(f"/jobs/{job}/view/{name}" for name in OF_A_RUN), "/jobs/999"]


def header_of(client: httpx.Client, path: str) -> str:
    page = unescape(client.get(path).text)
    assert page.count('<header class="bar">') == 1, path
    return page.partition('<header class="bar">')[2].partition("</header>")[0]


@pytest.mark.parametrize("role", ["reader", "admin"])
def test_every_page_says_who_is_logged_in_and_lets_them_out(node: Guarded, role: str) -> None:
    with node.person(role) as client:
        for path in every_page(node.job):
            if role == "reader" and path == "/users":
                continue
            header = header_of(client, path)
            assert f'<a href="/account">{role}.one, {role}</a>' in header, path
            assert 'action="/logout"' in header, path
            links = [f'href="{place}"' in header for place in ("/", "/projects", "/agreement/", "/api", "/users")]
            assert links == [True, True, True, role == "admin", role == "admin"], path


def test_who_logs_out_on_a_page_of_a_run_is_out(node: Guarded) -> None:
    with node.person("operator") as client:
        token = form_token(header_of(client, f"/jobs/{node.job}/view/report"))
        assert client.post("/logout", data={"token": token}).status_code == 303
        client.cookies.set("carina", node.cookies["operator"])
        assert client.get("/").status_code == 303


def test_pages_of_a_run_lead_to_its_job(node: Guarded) -> None:
    with node.person("reader") as client:
        for name in OF_A_RUN[:-1]:
            assert f'<a href="/jobs/{node.job}">Job {node.job}</a>' in header_of(
                client, f"/jobs/{node.job}/view/{name}"
            )


def test_without_a_log_in_the_places_are_there_and_nobody_is_named(tmp_path: Path) -> None:
    with serving(opened(tmp_path)) as url, httpx.Client(base_url=url) as client:
        header = header_of(client, "/agreement/")
        assert '<a href="/agreement/" aria-current="page">' in header
        assert "logout" not in header and "/account" not in header


def test_a_run_without_a_node_has_no_node_s_places(tmp_path: Path) -> None:
    with served(run_app(write_run(posed("plain", (24, 48, 48)), tmp_path / "run"))) as url:
        header = header_of(httpx.Client(base_url=url), "/report")
        assert "Worklist" not in header and "logout" not in header and "Files" in header


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["", "report", "correct/lesion"])
def test_the_header_fits_and_the_way_out_works(browser: Browser, node: Guarded, width: int, name: str) -> None:
    state = {"cookies": [{"name": "carina", "value": node.cookies["reader"], "url": node.url}]}
    size = {"width": width, "height": 800}
    with opened_page(browser, f"{node.url}/login", viewport=size, storage_state=state) as page:
        page.goto(f"{node.url}/jobs/{node.job}/view/{name}")
        assert page.locator("html").evaluate("it => it.scrollWidth") <= width
        expect(page.get_by_role("button", name="Log out")).to_be_visible()
        for pane in page.locator(".picture").all():
            box = pane.bounding_box()
            assert box is not None and (width == 390 or box["y"] + box["height"] <= 800)
