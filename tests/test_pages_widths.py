"""No page of a node is wider than its window, whatever its width, with rows of every state and long words in each."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import insert, update

from access_nodes import Guarded, account, guarded
from carina.corrections.standing import Decision
from carina.database import ARRIVAL, DELIVERY, JOB, PROJECT
from carina.jobs.reading import Decided
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.service.access.roles import Role
from served_nodes import NOON, add_job, hold

PATHS = (
    "",
    "?state=waiting",
    "projects",
    "projects/default",
    "jobs/1",
    "jobs/2",
    "jobs/3/log",
    "users",
    "account",
    "api",
    "agreement/",
)
WIDTHS = (*range(320, 1601, 80), 390, 801, 961, 1372)

WORD = "W" * 40
SAID = f"series 1.3.6.1.4.1.14519.5.2.1.6279.6001.{'7' * 29}: slices are missing between {WORD}.dcm and the next one"
DECIDED = Decided(layer="lesion", decision=Decision.REJECTED, reader=f"reader.{WORD}"[:64], at=NOON, reason=SAID)
ENDED = {"started_at": NOON, "stopped_at": NOON, "warnings": 12, "first_warning": SAID, "is_classified": 0}
READ = {"decisions": msgspec.json.encode([DECIDED] * 3).decode(), "ratio_percent": 12.34, "reader_ratio_percent": 11.1}

JOBS: tuple[dict[str, object], ...] = (
    {"state": "pending", "ended": "", "stopped_at": None, "not_before": NOON},
    {"state": "running", "ended": "", "started_at": NOON, "stopped_at": None, "attempt": 1},
    {"ended": "faulted", "error_code": "series.gap", "error": SAID, **ENDED},
    {"ended": "canceled", **ENDED},
    *({"ended": "healthy", "reading": one, **ENDED, **READ} for one in ("unread", "accepted", "rejected", "corrected")),
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("wide")
    with guarded(folder) as served:
        fill(served)
        yield served


def fill(served: Guarded) -> None:
    """Rows of every state, with words as long as they may be."""
    node = served.node
    account(node, f"somebody.{WORD}", Role.READER)
    hold(node, sorted((node.folder.parent / "ct").glob("*.dcm"))[:1], state="quarantined", source="nobody")
    with node.engine.begin() as connection:
        connection.execute(insert(PROJECT), {"name": f"p-{WORD}", "created_at": NOON})
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.state == "quarantined").values(reason=SAID))
        connection.execute(update(ARRIVAL).values(series_description=f"Chest {WORD}", sender=f"{WORD}@127.0.0.1"))
    for project in ("default", f"p-{WORD}"):
        for values in JOBS:
            pipeline = f"pipeline-{WORD}" if project != "default" else "default"
            job = add_job(node, served.arrival, **{"project": project, "pipeline": pipeline, **values})
            run(served, job)
    (node.folder / "logs").mkdir(exist_ok=True)
    (node.folder / "logs" / "job-3-1.log").write_text(SAID)
    with node.engine.begin() as connection:
        connection.execute(update(JOB).values(described=f"2026-03-04, Chest {WORD}"))
        for number, state in enumerate(("waiting", "sent", "confirmed", "failed")):
            row = {
                "job_id": served.job,
                "destination": "share",
                "sop_class_uid": "1.2",
                "sop_instance_uid": f"1.{number}",
            }
            row |= {"path": "x/lesion-segmentation.dcm", "state": state, "created_at": NOON}
            connection.execute(insert(DELIVERY), row | {"error": SAID, "error_code": "delivery.refused"})


def run(served: Guarded, job: int) -> None:
    """The run of a job, with an operator in each state."""
    operators = {f"operator-{one}-{WORD}": OperatorRecord(image="x", state=one, warnings=[SAID]) for one in State}
    definition = DefinitionRecord(name="d", file="f", sha256="")
    folder = served.node.folder / "runs" / str(job)
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(Manifest(fingerprint="", started="", definition=definition, operators=operators), folder)


@pytest.fixture(scope="module")
def page(browser: Browser, node: Guarded) -> Iterator[Page]:
    with browser.new_context() as context:
        context.add_cookies([{"name": "carina", "value": node.cookies["admin"], "url": node.url}])
        yield context.new_page()


@pytest.mark.parametrize("path", PATHS)
def test_no_page_is_wider_than_its_window_at_any_width(page: Page, node: Guarded, path: str) -> None:
    page.goto(f"{node.url}/{path}")
    page.wait_for_load_state("load")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        found[width] = page.locator("html").evaluate("it => it.scrollWidth")
    assert {width: wide for width, wide in found.items() if wide > width} == {}
