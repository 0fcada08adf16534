"""A node with two projects, ``alpha`` and ``bravo``, and people and programs who are in one of them.

The patient of both is one: what bravo holds was scanned earlier.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.uid import UID, EncapsulatedPDFStorage, SegmentationStorage
from sqlalchemy import insert, update

from access_nodes import Clock, account, kept_password
from carina.config import load_settings
from carina.corrections.masks import CORRECTIONS
from carina.database import ARRIVAL, DELIVERY, JOB
from carina.database.engine import database_now
from carina.pipeline.json_text import as_json
from carina.receive.uploads import Upload
from carina.service.access.accounts import find_account
from carina.service.access.members import set_member
from carina.service.access.roles import IN_PROJECT, PROGRAMS, Role
from carina.service.access.sessions import begin_session, new_token
from carina.service.loops import Part
from carina.service.node import RunningNode
from carina.service.serve import node_of
from served_nodes import NOON, add_job, hold, serving, settings_of, write_result
from viewer_runs import posed, through_dicom, write_run

SETTINGS = """
[sources.{project}-scanner]
kind = "dicom"
ae_title = "{PROJECT}"
project = "{project}"
destinations = ["{project}-share"]
{more}[sources.{project}-inbox]
kind = "folder"
path = "{folder}/{project}-inbox"
project = "{project}"
[destinations.{project}-share]
kind = "folder"
path = "{folder}/{project}-results"
"""

FIRST_IDS = {"alpha": 4001, "bravo": 70001}
"""Ids of a project's rows, so far apart that one of them in an answer says which project it is of."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a project holds: a series that was run and corrected, one that waits in quarantine, one that arrives."""

    name: str
    job: int
    uploaded: int
    pending: int
    arrival: int
    quarantined: int
    delivery: int
    study: str
    series: str
    instance: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody outside the project may see: names, UIDs, ids, the patient, each found in no other's."""
        ids = map(str, range(FIRST_IDS[self.name], FIRST_IDS[self.name] + 20))
        return (self.name, self.name.capitalize(), self.name.upper(), self.study, *ids)


@dataclass(kw_only=True)
class Shared:
    """A served node with the projects, and those who come to it."""

    node: RunningNode
    url: str
    folder: Path
    held: dict[str, Held]
    cookies: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def person(self, name: str, **headers: str) -> httpx.Client:
        """A browser in which somebody is logged in: ``reader of alpha``, ``member`` of none, ``operator`` of all."""
        client = httpx.Client(base_url=self.url, headers={"accept": "text/html", **headers}, timeout=60)
        client.cookies.set("carina", self.cookies[name])
        return client

    def program(self, name: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.tokens[name]}"}, timeout=60)


def series(folder: Path, project: str, number: int) -> list[Path]:
    """The files of a phantom that say whose they are."""
    root = f"2.25.{FIRST_IDS[project]}{number}"
    phantom = through_dicom(posed("plain", (12, 32, 32)), folder)
    files = sorted(folder.glob("*.dcm"))
    for index, file in enumerate(files):
        dataset = dcmread(file)
        dataset.PatientName, dataset.PatientID = f"{project.capitalize()}^Somebody", f"{project.upper()}-1"
        dataset.SeriesDescription, dataset.StudyDescription = f"{project} chest", f"{project} study"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{root}.1", f"{root}.2"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{root}.3.{index}")
        dataset.save_as(file)
    if number == 0:
        write_run(phantom, folder.parent / f"{project}-run")
    return files


def uploaded_files(node: RunningNode, job: int, files: Path) -> Path:
    """An upload that a job was made of; gives its content."""
    content = node.folder.absolute() / "uploads" / f"{job:032}" / "content"
    shutil.copytree(files, content)
    upload = Upload(id=f"{job:032}", owner="gone", key="whole", files=1, bytes=9, begun_at=NOON, job=job)
    content.with_name("upload.json").write_bytes(as_json(upload))
    return content


def fill(node: RunningNode, folder: Path, project: str) -> Held:
    """Put a project's series, jobs, results and deliveries into a node."""
    first = FIRST_IDS[project]
    files = series(folder / f"{project}-ct", project, 0)
    with node.engine.begin() as connection:  # so that the next ids are large
        row = {"id": first, "series_uid": "", "study_uid": "", "source": "", "sender": "", "state": "removed"}
        connection.execute(insert(ARRIVAL), row | {"project": project, "first_at": NOON, "last_at": NOON})
    source = f"{project}-scanner"
    arrival = hold(node, files, source=source)
    quarantined = hold(node, series(folder / f"{project}-q", project, 1)[:2], state="quarantined", source=source)
    arriving = hold(node, series(folder / f"{project}-a", project, 2)[:2], state="arriving", source=source)
    named: dict[str, Any] = {
        "project": project,
        "destinations": json.dumps([f"{project}-share"]),
        "pipeline": f"{project}-pipeline",
        "source": str(node.folder / "incoming" / str(arrival)),
        "series_uid": f"2.25.{first}0.2",
        "study_uid": f"2.25.{first}0.1",
    }
    job = add_job(node, arrival, id=first, **named | {"pipeline": "shared"}, error=f"{project} warns")
    uploaded = uploaded_files(node, first + 1, folder / f"{project}-ct")
    by_path = add_job(node, id=first + 1, **named | {"source": str(uploaded)})
    waiting = {"state": "pending", "ended": "", "stopped_at": None, "not_before": NOON.replace(year=2999)}
    pending = add_job(node, arrival, id=first + 2, **named, **waiting)
    run = node.folder / "runs" / str(job)
    shutil.move(folder / f"{project}-run", run)
    (run / CORRECTIONS).mkdir()
    for number, sop_class in ((job, EncapsulatedPDFStorage), (by_path, SegmentationStorage)):
        result = write_result(node, number, files[0], sop_class)
    write_result(node, job, files[0], EncapsulatedPDFStorage).rename(run / "dicom" / "volume-ratio.dcm")
    owner = f"operator.of.{project}"
    node.uploads.begin(Upload(id=f"{first:032}", owner=owner, key=project, files=1, bytes=9, begun_at=NOON))
    log = node.folder / "logs" / f"job-{job}-1.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"the log of {project}\n")
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == job).values(attempt=1))
        ids = [arrival, quarantined, arriving]
        said = {"project": project, "sender": f"{project.upper()}@127.0.0.1"}
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id.in_(ids)).values(**said))
        one_patient = {"whose_sha256": "f" * 64, "studied": {"alpha": "20260101", "bravo": "20250101"}[project]}
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == arrival).values(**one_patient))
        held = ARRIVAL.c.id == quarantined
        connection.execute(update(ARRIVAL).where(held).values(reason=f"nobody knows {project}"))
        row = {"id": first, "job_id": job, "destination": f"{project}-share", "sop_class_uid": SegmentationStorage}
        row |= {"sop_instance_uid": f"2.25.{first}.9", "path": str(result), "state": "failed", "error": f"{project}!"}
        connection.execute(insert(DELIVERY), row | {"created_at": database_now(connection)})
    root = f"2.25.{first}0"
    return Held(
        name=project,
        job=job,
        uploaded=by_path,
        pending=pending,
        arrival=arrival,
        quarantined=quarantined,
        delivery=first,
        study=f"{root}.1",
        series=f"{root}.2",
        instance=f"{root}.3.0",
    )


@contextmanager
def shared_node(folder: Path, projects: tuple[str, ...] = ("alpha", "bravo"), more: str = "") -> Iterator[Shared]:
    """Serve a node with these projects that asks for a log-in; ``more`` stands in the settings of each scanner."""
    text = "".join(SETTINGS.format(project=one, PROJECT=one.upper(), folder=folder, more=more) for one in projects)
    settings_of(folder, text)
    file = folder / "carina.toml"
    file.write_text(file.read_text().replace("[web]\n", "[web]\nlogin = true\n"))
    settings, clock = load_settings(file, {}), Clock()
    node = RunningNode(settings=settings, engine=node_of(settings).engine, now=clock)
    names = [name for one in projects for name in (f"folder {one}-inbox", f"earlier scans of {one}-share")]
    node.parts.extend(Part(name, lambda stop: None, stop=node.stop) for name in ["dicom", *names])
    held = {project: fill(node, folder, project) for project in projects}
    node.is_recovered.set()
    shared = Shared(node=node, url="", folder=folder, held=held)
    for person in ["member", *IN_PROJECT]:
        let_in(shared, person, Role(person), clock)
    for project in projects:
        for role in IN_PROJECT:
            let_in(shared, f"{role} of {project}", role, clock, project)
    with serving(node) as shared.url:
        yield shared


def let_in(shared: Shared, person: str, role: Role, clock: Clock, project: str = "") -> None:
    """A session, and a token where a program may have the role: of the whole node, or in one project."""
    engine, web = shared.node.engine, shared.node.settings.web
    account_id = account(shared.node, person.replace(" ", "."), Role.MEMBER if project else role, kept_password())
    with engine.begin() as connection:
        if project:
            set_member(connection, project, find_account(connection, account_id).name, role)
        shared.cookies[person] = begin_session(connection, account_id, web, clock.at)
        if role in PROGRAMS:
            shared.tokens[person] = new_token(connection, person.replace(" ", "."), role, clock.at, project)
