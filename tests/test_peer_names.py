"""Whoever only reads is told of peers by name: no message of a page, of REST or of health says where they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import insert, update

from access_nodes import Guarded, guarded
from carina.config import (
    Destination,
    DicomDestination,
    DicomwebDestination,
    FolderDestination,
    FolderSource,
    Settings,
)
from carina.database import DELIVERY, JOB, PRIOR
from carina.deliver.association import address
from carina.deliver.receipt import unreachable
from carina.service.health import Readiness
from carina.service.loops import Part
from carina.service.node import RunningNode
from carina.service.peer_names import MESSAGES, message_without_addresses
from served_nodes import NOON

MORE = """
[destinations.archive]
kind = "dicom"
host = "pacs7.ward.example"
port = 10407
ae_title = "WARD ARCHIVE"
tls_name = "pacs-certificate.example"
[destinations.web]
kind = "dicomweb"
url = "https://dicomweb.ward.example:8042/dicom-web"
[destinations.pacs]
kind = "dicom"
host = "pacs"
port = 104
ae_title = "PACS"
[sources.inbox]
kind = "folder"
path = "/srv/ward seven/inbox"
"""

SECRETS = ("ward.example", "10407", "8042", "WARD ARCHIVE", "10.9.8.7", "ward seven", "certificate.example")

SAID = (
    "archive (WARD ARCHIVE@pacs7.ward.example:10407) can't be reached: nothing answers there. Check address.",
    "archive (WARD ARCHIVE@10.9.8.7:104) can't be reached: nothing answers there.",  # as it was before
    "archive: its certificate is not for pacs-certificate.example: see pacs7.ward.example, or pacs7.ward.example:10407",
    "web (https://dicomweb.ward.example:8042/dicom-web) did not answer what it has: 503.",
    "https://dicomweb.ward.example:8042/dicom-web/studies: refused by dicomweb.ward.example.",
    "folder inbox: /srv/ward seven/inbox: can't be read: make it readable.",
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A node on which everything that can say something of a peer has said it."""
    with guarded(tmp_path_factory.mktemp("guarded"), MORE) as one:
        say_everywhere(one.node, one.job)
        yield one


def say_everywhere(node: RunningNode, job: int) -> None:
    values: dict[str, Any] = {"job_id": job, "sop_class_uid": "1.2", "path": "runs/1/dicom/1.dcm", "created_at": NOON}
    values |= {"attempts": 1, "error_code": "delivery.unreachable", "not_before": NOON, "sha256": ""}
    with node.engine.begin() as connection:
        for number, said in enumerate(SAID):
            for state in ("waiting", "failed"):
                row = values | {"sop_instance_uid": f"1.2.{number}", "error": said, "note": said, "state": state}
                name = f"{('archive', 'web')[number % 2]}"
                row |= {"destination": name if state == "waiting" else f"{name}.{number}"}
                connection.execute(insert(DELIVERY), row)
        every = " ".join(SAID)
        changed = {"ended": "faulted", "error": every, "error_code": "delivery.incomplete", "first_warning": every}
        connection.execute(update(JOB).where(JOB.c.id == job).values(warnings=1, **changed))
        wish = {"job_id": job, "peer": "archive", "state": "fetched", "said": every, "attempts": 1, "created_at": NOON}
        connection.execute(insert(PRIOR), wish)
    part = Part("jobs", lambda _: None, stop=node.stop)
    part._set(part.status.state.BROKEN, deaths=1, error=every)
    node.parts.append(part)


READ = (
    "/",
    "/projects/default",
    "/jobs/1",
    "/jobs/1/view/",
    "/series/{series}",
    "/api/v1/jobs",
    "/api/v1/jobs/1",
    "/api/v1/arrivals",
    "/api/v1/deliveries",
    "/api/v1/deliveries?job=1",
    "/api/v1/destinations",
    "/health/ready",
    "/metrics",
)

TOLD = frozenset({"/", "/jobs/1", "/api/v1/jobs", "/api/v1/jobs/1", "/api/v1/deliveries", "/health/ready"})
"""Where whoever operates is told the address."""


@pytest.mark.parametrize("path", READ)
def test_of_a_peer_who_only_reads_is_told_the_name(node: Guarded, path: str) -> None:
    for client in (node.person("reader"), node.program("reader")):
        said = client.get(path).text
        assert [secret for secret in SECRETS if secret in said] == []
    if path in TOLD:
        assert "archive" in said or "web" in said
        assert "pacs7.ward.example" in node.person("operator").get(path).text
        assert "pacs7.ward.example" in node.person("admin").get(path).text


def test_strangers_are_told_no_address_either(node: Guarded) -> None:
    said = node.person(None).get("/health/ready").text
    assert [secret for secret in SECRETS if secret in said] == []


def test_every_field_with_a_message_is_known() -> None:
    """A field of an answer that says something in words is among those that are looked through."""
    assert {"error", "note", "said", "troubles", "warnings", "first_warning", "reason"} == MESSAGES
    assert {"troubles", "warnings"} <= set(Readiness.__struct_fields__)


@pytest.mark.parametrize("said", SAID)
def test_what_is_left_of_a_message_is_its_words(node: Guarded, said: str) -> None:
    left = message_without_addresses(said, node.node.settings)
    assert [secret for secret in SECRETS if secret in left] == []
    assert left.startswith(("archive", "web", "folder inbox"))


PLACES: dict[str, tuple[Destination | FolderSource, str]] = {
    "dicom": (DicomDestination(host="10.1.1.1", port=104, ae_title="A B"), "A B@10.1.1.1:104"),
    "dicomweb": (DicomwebDestination(url="http://10.1.1.1:80/x/"), "http://10.1.1.1:80/x/"),
    "folder": (FolderDestination(path="/a b/(c)"), "/a b/(c)"),
    "inbox": (FolderSource(path="/a b/(c)/"), "/a b/(c)/"),
}


@pytest.mark.parametrize("kind", PLACES)
def test_of_each_kind_of_peer_the_name_remains(kind: str) -> None:
    place, where = PLACES[kind]
    if isinstance(place, FolderSource):
        settings = Settings(sources={"there": place})
    else:
        settings = Settings(destinations={"there": place})
    if isinstance(place, DicomDestination):
        assert address(place) == where
    said = unreachable("there", where, f"nothing answers at {where}", "See it").message
    left = message_without_addresses(said, settings)
    assert left in (
        "there can't be reached: nothing answers at there. See it.",
        "there (there) can't be reached: nothing answers at there. See it.",
    )


def test_words_that_only_look_like_a_host_are_left_alone(node: Guarded) -> None:
    said = "pacs-like (18 of 20 objects), pacs.other, 3 (of 4) slices; see the.pacs and xpacs"
    assert message_without_addresses(said, node.node.settings) == said
