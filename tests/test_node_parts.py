"""The parts of a node: one that dies is seen, begins again, and the others don't notice."""

from __future__ import annotations

import errno
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import msgspec
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from sqlalchemy.exc import OperationalError

from carina.database import DISK_FULL, Outages
from carina.database.outage import LASTS_S
from carina.errors import BadConfig
from carina.operators.catalogue import known_definitions
from carina.receive.listener import DicomListener
from carina.service import parts
from carina.service.check_contents import check_contents
from carina.service.endpoint import ENDPOINT_PART, watch_endpoint
from carina.service.health import readiness
from carina.service.loops import Part, PartState, stop_all
from carina.service.node import RunningNode
from open_inference import serving
from served_nodes import opened

SETTINGS = '[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\n'


def answers(node: RunningNode) -> bool:
    """Whether a C-ECHO is answered."""
    entity = AE()
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", node.settings.dicom.port, ae_title="CARINA")
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0


def in_time(event: threading.Event) -> bool:
    return event.wait(60)


@dataclass(frozen=True, kw_only=True)
class Listening:
    """A node that listens for DICOM, and each of its listeners with an event that says that it listens."""

    node: RunningNode
    born: list[DicomListener]
    listens: list[threading.Event]


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    born: list[DicomListener] = []
    listens = [threading.Event(), threading.Event()]

    class Born(DicomListener):
        def start(self) -> None:
            super().start()
            listens[len(born)].set()
            born.append(self)

    monkeypatch.setattr(parts, "DicomListener", Born)
    node = opened(tmp_path, SETTINGS)
    node.parts.extend(one for one in parts.parts_of(node) if one.name in ("arrivals", "dicom"))
    for part in node.parts:
        part.start()
    yield Listening(node=node, born=born, listens=listens)
    stop_all(node.parts, node.stop, 30)


def test_a_listener_that_dies_is_seen_and_listens_again(listening: Listening) -> None:
    node = listening.node
    assert in_time(listening.listens[0])
    assert answers(node)
    server = listening.born[0]._server
    assert server is not None
    server.shutdown()
    assert in_time(listening.listens[1])
    assert answers(node)
    assert {one.status.name: one.status.deaths for one in node.parts} == {"arrivals": 0, "dicom": 1}
    assert readiness(node).ready


def test_a_listener_that_refuses_instances_for_want_of_room_is_no_readiness(listening: Listening) -> None:
    node = listening.node
    assert in_time(listening.listens[0]) and readiness(node).ready
    words = "/there: no space is left there (0.1 MB are free): make room."
    listening.born[0].outages.tell(BadConfig(DISK_FULL, words))
    assert readiness(node).troubles == (f"dicom: instances are refused: {words}",)
    listening.born[0].outages.is_over()
    assert readiness(node).ready


def test_an_outage_that_nobody_meets_any_more_lasts_no_longer() -> None:
    now = [0.0]
    outages = Outages("dicom", Path(), lambda: now[0])
    outages.tell(BadConfig(DISK_FULL, "full."))
    for now[0] in (0.0, LASTS_S - 1):
        assert outages.lasting == "dicom: full."
    now[0] = LASTS_S
    assert outages.lasting == ""


@pytest.mark.parametrize("free_gb", [0, 5])
def test_a_full_disk_is_no_readiness_whatever_is_to_stay_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: float
) -> None:
    node = opened(tmp_path)
    bounds = msgspec.structs.replace(node.settings.node, free_gb=free_gb)
    node = replace(node, settings=msgspec.structs.replace(node.settings, node=bounds))
    monkeypatch.setattr("carina.service.health.shutil.disk_usage", lambda folder: SimpleNamespace(free=4096))
    (trouble,) = [one for one in readiness(node).troubles if one.startswith("disk: ")]
    assert re.match("disk: .*: (instances|senders) are refused", trouble)


def test_a_folder_that_can_not_be_written_is_no_readiness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stays readable after a fault by which a disk is mounted read-only, the database too."""
    node = opened(tmp_path, SETTINGS)
    for number, expected in (
        (errno.EROFS, ["disk: the node's folder can't be written (Read-only"]),
        (errno.ENOSPC, []),
    ):
        error = OSError(number, os.strerror(number))
        monkeypatch.setattr("carina.service.health.TemporaryFile", Mock(side_effect=error))
        told = [one for one in readiness(node).troubles if one.startswith("disk")]
        assert [one.partition(" file system")[0] for one in told] == expected


def test_a_database_that_is_away_is_one_clean_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "connection failed: Connection refused\n\tIs the server running on that host?\nMultiple attempts failed"
    away = OperationalError("select 1", {}, Exception(said))

    def gone(engine: object) -> None:
        raise away

    monkeypatch.setattr("carina.service.health.read_only", gone)
    (trouble,) = [one for one in readiness(opened(tmp_path, SETTINGS)).troubles if one.startswith("database")]
    assert trouble == "database: does not answer (connection failed: Connection refused)"


def test_a_database_file_that_was_replaced_is_no_readiness(tmp_path: Path) -> None:
    """What is written after that is in a file that nobody finds again, while each statement succeeds."""
    node = opened(tmp_path, SETTINGS)
    file, aside = node.folder / "node.sqlite", tmp_path / "aside"
    assert not [one for one in readiness(node).troubles if one.startswith("database")]
    file.rename(aside)
    for seen in (node, node.seen_in(frozenset())):
        (trouble,) = [one for one in readiness(seen).troubles if one.startswith("database")]
        assert trouble.startswith("database: its file was removed or replaced while the node runs")
    shutil.copyfile(aside, file)
    assert [one for one in readiness(node).troubles if one.startswith("database: its file was removed or replaced")]
    aside.replace(file)
    assert not [one for one in readiness(node).troubles if one.startswith("database")]
    node.folder.rename(tmp_path / "gone")
    assert any(one.startswith("disk: the node's folder is not there (no node.id") for one in readiness(node).troubles)


def test_pipelines_and_rules_of_sources_that_can_not_be_used_are_no_readiness(tmp_path: Path) -> None:
    (tmp_path / "own.toml").touch()
    shutil.copyfile(known_definitions()["default"], tmp_path / "own.yaml")
    rules = f'series_rules = "{tmp_path}/own.toml"\n'
    source = f'[sources.a]\nkind = "dicom"\nae_title = "A"\npipelines = ["default", "{tmp_path}/own.yaml"]\n{rules}'
    node = opened(tmp_path, f"{rules}{source}")
    assert len(readiness(node).troubles) == 1, "it is starting"
    (tmp_path / "own.yaml").write_text("[")
    (tmp_path / "own.toml").unlink()
    said = ["series_rules: own.toml", "sources.a.pipelines: own.yaml", "sources.a.series_rules: own.toml"]
    told = readiness(node).troubles[1:]
    assert [one.partition(" can't")[0] for one in told] == said
    assert str(tmp_path) not in "".join(told) and all(one.endswith("carina serve --check says why") for one in told)
    of_others = [one.partition(",")[0] for one in readiness(node.seen_in(frozenset())).troubles[1:]]
    assert of_others == [
        "series_rules: own.toml can't be used",
        "a file that a source not shown to you names can't be used; whoever sees the whole node is told which",
    ]
    shutil.copyfile(known_definitions()["default"], tmp_path / "own.yaml")
    (tmp_path / "own.toml").touch()
    assert len(readiness(node).troubles) == 1


def test_a_server_of_networks_that_is_away_is_no_readiness(tmp_path: Path) -> None:
    pytest.importorskip("tritonclient", reason="the triton extra is not installed")
    with serving("any", lambda patches: patches) as (_, endpoint):
        node = opened(tmp_path, f'[runtime]\nendpoint = "{endpoint}"\n')
        assert ENDPOINT_PART in {part.name for part in parts.parts_of(node)}
        node.stop.set()  # each call asks once
        watch_endpoint(node, node.stop)
        assert not [one for one in readiness(node).troubles if one.startswith(ENDPOINT_PART)]
    for address, said in ((endpoint, "Connection refused"), (endpoint.replace("http", "grpc"), "Connection refused")):
        node = opened(tmp_path, f'[runtime]\nendpoint = "{address}"\n')
        node.stop.set()
        watch_endpoint(node, node.stop)
        (trouble,) = [one for one in readiness(node).troubles if one.startswith(ENDPOINT_PART)]
        assert re.fullmatch(rf"networks: runtime\.endpoint gives no answer \(.*{said}\): jobs that need .*", trouble)
        told = [f"{'.'.join(one.key)}: {one.words}" for one in check_contents(node.settings)]
        assert [one.partition(":")[0] for one in told] == ["models.lung", "models.lesion", "models.covid"]
        assert all(f"Triton at {address}: no answer" in one for one in told)


def test_a_node_that_has_ended_answers_nobody(listening: Listening) -> None:
    assert in_time(listening.listens[0])
    stop_all(listening.node.parts, listening.node.stop, 30)
    assert not answers(listening.node)
    assert "the node is being stopped" in readiness(listening.node).troubles


def waiting(stop: threading.Event) -> None:
    stop.wait(60)


@pytest.mark.parametrize("name", ["dicom", "folder ward-inbox", "earlier scans of ward-share"])
def test_a_part_that_is_dead_is_no_readiness_for_whoever_asks(tmp_path: Path, name: str) -> None:
    """Whoever may not see the part is told that one doesn't run, and neither its name nor why."""
    node = opened(tmp_path, SETTINGS)
    lives, dead = (Part(one, waiting, stop=node.stop) for one in ("arrivals", name))
    node.parts.extend([lives, dead])
    lives.start()
    assert readiness(node).troubles == ("the node is starting",)
    dead._set(PartState.BROKEN, deaths=1, error="it ended by itself")
    assert not readiness(node).ready
    for projects in (frozenset[str](), frozenset({"another"})):
        seen = readiness(node.seen_in(projects))
        is_shown = name == "dicom"
        assert (seen.ready, name in seen.parts, bool(seen.troubles)) == (False, is_shown, True)
        assert is_shown or not [one for one in seen.troubles if "ward" in one]
        assert ("a part that is not shown to you does not run" in seen.troubles[0]) is not is_shown
    stop_all([lives], node.stop, 30)
