"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from sqlalchemy import Engine

from carina.config import Settings
from carina.database import open_database, upgrade_schema
from certificates import SESSION, authority
from databases import new_database, new_node_database, postgresql_server
from remembered import remember
from webhooks import Hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""For torch here and in every process of a test: beside a second worker, threads that wait for each other spin."""

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
"""No example has a deadline and no search for them a clock: a busy machine is slow."""

settings.register_profile("ci", UNHURRIED, derandomize=True)
"""The same examples every time: continuous integration tells of a change, not of luck; at home the search goes on."""

settings.register_profile("home", UNHURRIED)

settings.load_profile("ci" if os.environ.get("CI") == "true" else "home")

for _wait in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _wait, None)  # a busy machine answers late

PATIENCE_MS = 15_000
"""How late a browser may be on a busy machine: what is far beyond any wait of one that is not broken."""

expect.set_options(timeout=PATIENCE_MS)

remember(pytest.MonkeyPatch())  # before a module of tests imports them by name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a command sets for its own process does not go on for the tests after it."""
    ours = logging.getLogger("carina")
    level, handlers, propagates = ours.level, ours.handlers[:], ours.propagate
    of_threads = threading.excepthook
    yield
    ours.setLevel(level)
    ours.handlers, ours.propagate = handlers, propagates
    threading.excepthook = of_threads


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real CT data; the test skips where it is absent."""
    folder = Path(os.environ.get("CARINA_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data not found at {folder}; set CARINA_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates with their keys: ``certificates.SESSION``."""
    return authority(tmp_path_factory.mktemp("tls"), SESSION)


TOOL_MISSING = ("not installed", "could not import")
"""Words in a skip's reason that say an installable tool is missing; where CI is set, such a skip fails."""


def _fail_missing_tool(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true" and report.skipped and any(w in str(report.longrepr) for w in TOOL_MISSING):
        report.outcome = "failed"
        report.longrepr = f"with CI=true nothing may be skipped for want of a tool: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_missing_tool(report)
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Names what failed at once: a run that is cut off has told it."""
    if report.failed and os.environ.get("PYTEST_XDIST_WORKER") is None:
        last = str(report.longrepr).rstrip().rpartition("\n")[2]
        sys.stderr.write(f"\n{report.when} of {report.nodeid} failed: {last}\n")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_missing_tool(report)
    return report


def pytest_collection_finish() -> None:
    """What all modules hold is no garbage: looking through it time and again takes seconds of a worker's minutes."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes name no test: those made anew in each process (a zip holds the time) would be another test in each."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server for the session: its address without a database's name; skips where there is none."""
    with postgresql_server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def node_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of either kind in which nothing is; that on a server has the tables of a node."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/node.sqlite"
    return new_node_database(request.getfixturevalue("postgresql"), f"test{next(_NUMBERS)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database of either kind without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/node.sqlite"
    return new_database(request.getfixturevalue("postgresql"), f"test{next(_NUMBERS)}")


_NUMBERS = count()


@pytest.fixture
def engine(node: Settings) -> Iterator[Engine]:
    """The database, as it is at the first start, of the node whose settings a module's fixture ``node`` gives."""
    made = open_database(node.node.database)
    upgrade_schema(made)
    yield made
    made.dispose()


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook that answers."""
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


BROWSER_FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""A browser of root's, without a screen, that draws in 3D all the same."""


def _patient(make: Callable[..., Page | BrowserContext]) -> Callable[..., Page | BrowserContext]:
    """``make``, with pages whose deeds may take `PATIENCE_MS` as well.

    Their requests are looked at from the first one to the last: where a test's ``route`` is the first of a page that
    is open, or its ``unroute`` the last, the browser answers before the page's own process knows, and what is asked
    for meanwhile slips by or is never answered.
    """

    def made(**given: Any) -> Page | BrowserContext:
        one = make(**given)
        one.set_default_timeout(PATIENCE_MS)
        context = one if isinstance(one, BrowserContext) else one.context
        context.route("**/asked-by-no-page", lambda route: route.abort())
        return one

    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless; ends with the module, since Playwright's loop would be in others' way."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed; scripts/test does that")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        for make in ("new_page", "new_context"):
            setattr(chromium, make, _patient(getattr(chromium, make)))
        yield chromium
        chromium.close()
