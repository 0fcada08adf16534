"""A node that serves, in a process of its own, whose folder is taken away while it receives, runs and delivers.

Each time an empty folder is in its place for a while, as where a disk was unmounted. What was accepted is run and sent
once the folder is back, nothing is found in the empty one, and the log has a line when it goes and one when it is back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import AllStoragePresentationContexts
from sqlalchemy import Table, select

from carina.config import Settings, load_settings
from carina.database import ARRIVAL, DELIVERY, INSTANCE, JOB, open_database
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port
from waiting import wait_until

PROGRAM = Path(sys.executable).with_name("carina")
SLICES, FIRST = 12, 4
NOT_THERE = "the node's folder is not there"

PIPELINE = """
api-version: 0.4.0
name: held
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
- name: hold
  container: {image: example/hold, command: [sh, hold.sh, /output]}
  input: [{from: dicom-reader, path: /input}]
  output: [{path: /output}]
- name: slices
  container: {image: carina/dicom-writer}
  input: [{from: dicom-reader, path: /input}, {path: /dicom}]
  output: [{path: /output, name: dicom}]
"""

HOLD = "touch holds; while [ ! -e goes ]; do sleep 0.05; done; mkdir -p $1; echo {} > $1/held.json\n"

SETTINGS = """
[node]
folder = "{folder}/node"
free_gb = 0.0
[operators]
engine = "none"
trusted = ["{folder}/held.yaml"]
[dicom]
port = {dicom}
[web]
port = {web}
[sources.scanner]
kind = "dicom"
ae_title = "CARINA"
quiet_s = 1.0
pipelines = ["{folder}/held.yaml"]
destinations = ["PACS"]
[destinations.PACS]
kind = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "PACS"
"""


@dataclass
class Pacs:
    """Stores; the second object is held until somebody lets it go."""

    port: int
    stored: Counter[str] = field(default_factory=Counter)
    holds: threading.Event = field(default_factory=threading.Event)
    goes: threading.Event = field(default_factory=threading.Event)

    def store(self, event: Event) -> int:
        self.stored[str(event.request.AffectedSOPInstanceUID)] += 1
        if len(self.stored) == 2:
            self.holds.set()
            self.goes.wait()
        return 0


@dataclass
class Served:
    """The node's process, its settings and its log."""

    process: subprocess.Popen[bytes]
    settings: Settings
    home: Path
    _instead: Iterator[int] = field(default_factory=count)

    @property
    def folder(self) -> Path:
        return Path(self.settings.node.folder)

    def until(self, is_so: Callable[[], bool]) -> None:
        wait_until(is_so, self.process)

    def log(self) -> str:
        return (self.home / "serve.log").read_text()

    def ready(self) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.settings.web.port, timeout=60)
        try:
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def take_away(self) -> None:
        self.folder.rename(self.home / "real")
        self.folder.mkdir()

    def bring_back(self) -> None:
        """Once the node has said that it is away, and its health does."""
        told = self.log().count("works again") + 1
        self.until(lambda: self.log().count(f"node: {self.folder}: {NOT_THERE}") == told)
        status, words = self.ready()
        assert (status, NOT_THERE in words) == (503, True)
        assert list(self.folder.rglob("*")) == []
        self.folder.rename(self.home / f"instead-{next(self._instead)}")
        (self.home / "real").rename(self.folder)
        self.until(lambda: self.log().count("node: works again") == told)
        self.until(lambda: self.ready()[0] == 200)

    def rows(self, table: Table) -> list[dict[str, object]]:
        engine = open_database(f"sqlite:///{self.folder}/node.sqlite")
        with engine.connect() as connection:
            found = [dict(row) for row in connection.execute(select(table)).mappings()]
        engine.dispose()
        return found


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made, entity = Pacs(free_port()), AE("PACS")
    entity.supported_contexts = AllStoragePresentationContexts[:120]
    entity.add_supported_context("1.2.840.10008.1.1")
    handlers = [(evt.EVT_C_STORE, made.store)]
    server = entity.start_server(("127.0.0.1", made.port), block=False, evt_handlers=handlers)
    yield made
    made.goes.set()
    server.shutdown()


@pytest.fixture
def served(tmp_path: Path, pacs: Pacs) -> Iterator[Served]:
    ports = {"dicom": free_port(), "web": free_port(), "pacs": pacs.port}
    (tmp_path / "carina.toml").write_text(SETTINGS.format(folder=tmp_path, **ports))
    (tmp_path / "held.yaml").write_text(PIPELINE)
    (tmp_path / "hold.sh").write_text(HOLD)
    settings = load_settings(tmp_path / "carina.toml", {})
    with (tmp_path / "serve.log").open("wb") as log:
        command = [str(PROGRAM), "serve", "--config", str(tmp_path / "carina.toml")]
        process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    node = Served(process, settings, tmp_path)
    try:
        node.until(lambda: node.ready()[0] == 200)
        yield node
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def sent(node: Served, files: list[Path], meanwhile: Callable[[], None] = lambda: None) -> list[int]:
    """The statuses of files that are sent on one association; after the first few something happens."""
    entity = AE("CT1")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", node.settings.dicom.port, ae_title="CARINA")
    assert association.is_established
    statuses = []
    for number, file in enumerate(files):
        if number == FIRST:
            meanwhile()
        statuses.append(int(association.send_c_store(file).Status))
    association.release()
    return statuses


def test_nothing_is_lost_or_judged_whatever_it_was_at(served: Served, pacs: Pacs, tmp_path: Path) -> None:
    phantom = chest_phantom(shape=(SLICES, 96, 96), spacing_mm=(3.0, 1.5, 1.5), lesions=0)
    write_ct_series(phantom.volume, tmp_path / "ct")
    files = sorted((tmp_path / "ct").iterdir())

    statuses = sent(served, files, served.take_away)  # in the middle of receiving
    assert statuses == [0] * FIRST + [0xA700] * (SLICES - FIRST)
    served.bring_back()
    assert sent(served, files) == [0] * SLICES

    served.until(lambda: (tmp_path / "holds").exists())  # in the middle of a run
    served.take_away()
    (tmp_path / "goes").touch()
    served.until(lambda: "is given back, since it could not reach the node's database or folder" in served.log())
    served.bring_back()

    served.until(pacs.holds.is_set)  # in the middle of delivering
    served.take_away()
    pacs.goes.set()
    served.bring_back()
    served.until(lambda: {row["state"] for row in served.rows(DELIVERY)} == {"confirmed"})

    check_all_is_there(served, pacs)


def check_all_is_there(served: Served, pacs: Pacs) -> None:
    jobs = [(row["state"], row["ended"], row["error_code"]) for row in served.rows(JOB)]
    assert jobs[-1] == ("stopped", "healthy", "")
    assert {ended for _, ended, _ in jobs} <= {"healthy", "canceled"}
    assert {row["state"] for row in served.rows(ARRIVAL)} == {"queued"}
    assert len({row["sop_instance_uid"] for row in served.rows(INSTANCE)}) == SLICES
    assert set(pacs.stored.values()) == {1}
    assert served.log().count(NOT_THERE) == served.log().count("node: works again") == 3
