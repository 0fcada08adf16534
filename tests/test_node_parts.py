"""The parts of a node: one that dies is seen, begins again, and the others don't notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from carina.receive.listener import DicomListener
from carina.service import parts
from carina.service.health import readiness
from carina.service.loops import Part, stop_all
from carina.service.node import RunningNode
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
    assert not readiness(node).ready
    for projects in (frozenset[str](), frozenset({"another"})):
        seen = readiness(node.seen_in(projects))
        is_shown = name == "dicom"
        assert (seen.ready, name in seen.parts, bool(seen.troubles)) == (False, is_shown, True)
        assert is_shown or not [one for one in seen.troubles if "ward" in one]
        assert ("a part that is not shown to you does not run" in seen.troubles[0]) is not is_shown
    stop_all([lives], node.stop, 30)
