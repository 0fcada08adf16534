"""A PACS is asked how many instances a series has: a whole one is complete at once, any other after its quiet time."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Engine

from carina.config import (
    DicomDestination,
    DicomSettings,
    DicomSource,
    DicomwebDestination,
    FolderDestination,
    NodeSettings,
    Settings,
)
from carina.database import open_database, upgrade_schema
from carina.errors import DeliveryFailed
from carina.receive import ask
from carina.receive.ask import ASK_AGAIN_S, GROWING_S, SURE_S, Asker
from carina.receive.complete import complete_arrivals
from carina.receive.fetch import Wanted, find_on_node, instances_on_node
from carina.receive.files import arriving_file, read_says
from carina.receive.listener import DicomListener
from carina.receive.store import InstanceStore, SentBy
from carina.receive.web_fetch import instances_on_server, search_series
from carina.service.check import check_across
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from carina.testing.ports import free_port
from received_files import arrival_states, small_ct

SLICES = 8
LISTENER = free_port()
QUIET_S = 3600.0


@dataclass
class Clock:
    """A clock that is set by hand."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Peer:
    """A PACS that says what it is told to say, and counts who asks."""

    says: int | DeliveryFailed | None = None
    asked: list[str] = field(default_factory=list)

    def count(self, name: str, peer: object, study_uid: str, series_uid: str) -> int | None:
        self.asked.append(series_uid)
        if isinstance(self.says, DeliveryFailed):
            raise self.says
        return self.says


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    (tmp_path / "node").mkdir()
    pacs = DicomDestination(host="127.0.0.1", port=free_port(), ae_title="PACS")
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0),
        dicom=DicomSettings(port=LISTENER),
        sources={"pacs": DicomSource(ae_title="CARINA", ask="pacs", quiet_s=QUIET_S)},
        destinations={"pacs": pacs},
    )


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = open_database(node_database)
    upgrade_schema(made)
    yield made
    made.dispose()


@dataclass
class Scene:
    """A node whose PACS and clock are ours."""

    node: Settings
    engine: Engine
    peer: Peer
    clock: Clock
    asker: Asker

    def come(self, *numbers: int, source: str = "pacs") -> None:
        store = InstanceStore(self.node, self.engine)
        for number in numbers:
            file = Path(self.node.node.folder) / f"{number}.dcm"
            file.write_bytes(small_ct(f"1.2.3.{number}"))
            with arriving_file(file, read_says(file)) as arriving:
                store.accept(arriving, SentBy(source, "PACS@127.0.0.1"))

    def rounds(self, seconds: float) -> None:
        for _ in range(int(2 * seconds)):
            self.asker.round()
            complete_arrivals(self.node, self.engine)
            self.clock.now_s += 0.5

    @property
    def is_complete(self) -> bool:
        return arrival_states(self.engine)[-1] != "arriving"


@pytest.fixture
def scene(node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Scene:
    peer, clock = Peer(), Clock()
    monkeypatch.setattr(ask, "count_at", peer.count)
    return Scene(node, engine, peer, clock, Asker("pacs", node, engine, clock))


def test_a_series_is_complete_once_all_that_the_pacs_has_are_here(scene: Scene) -> None:
    scene.peer.says = 3
    scene.come(1, 2)
    scene.rounds(SURE_S + 1)
    assert not scene.is_complete
    scene.come(3)
    scene.rounds(0.5)
    assert scene.is_complete, "asked before, and once more when all were here"
    assert len(scene.peer.asked) == 2


def test_a_pacs_that_still_receives_is_not_believed(scene: Scene) -> None:
    """It passes on what it gets: at every moment it has what is here."""
    for number in range(1, 6):
        scene.come(number)
        scene.peer.says = number
        scene.rounds(SURE_S - 0.5)
        assert not scene.is_complete
    scene.rounds(SURE_S)
    assert scene.is_complete


def test_a_series_that_grows_is_asked_about_again(scene: Scene) -> None:
    scene.peer.says = 9
    for number in range(1, 5):
        scene.come(number)
        scene.rounds(GROWING_S)
    assert len(scene.peer.asked) == 4
    scene.rounds(3 * ASK_AGAIN_S)
    assert len(scene.peer.asked) in (6, 7)
    assert not scene.is_complete


def quiet_passes(scene: Scene) -> None:
    quick = msgspec.structs.replace(scene.node.sources["pacs"], quiet_s=0.001)
    complete_arrivals(msgspec.structs.replace(scene.node, sources={"pacs": quick}), scene.engine)
    scene.asker.round()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (None, "arrival 1: pacs gives no number of instances for a CT series of this UID: the quiet time counts."),
        (
            DeliveryFailed("delivery.unreachable", "pacs (PACS@127.0.0.1:1): nothing answers there."),
            "how many instances there are can't be asked: series are complete after their quiet time. "
            "pacs (PACS@127.0.0.1:1): nothing answers there.",
        ),
        (7, "arrival 1 was complete after its quiet time: 2 instances are here, pacs has 7."),
    ],
)
def test_without_an_answer_the_quiet_time_counts_and_one_line_says_so(
    scene: Scene, caplog: pytest.LogCaptureFixture, says: int | DeliveryFailed | None, words: str
) -> None:
    caplog.set_level(logging.INFO, "carina.receive.ask")
    scene.peer.says = says
    scene.come(1, 2)
    scene.rounds(5 * ASK_AGAIN_S)
    assert 5 <= len(scene.peer.asked) <= 6
    assert not scene.is_complete
    quiet_passes(scene)
    assert scene.is_complete
    assert [one.getMessage() for one in caplog.records if one.name == "carina.receive.ask"] == [words]


def test_a_pacs_that_answers_again_is_asked_again(scene: Scene) -> None:
    scene.peer.says = DeliveryFailed("delivery.unreachable", "away")
    scene.come(1)
    scene.rounds(1)
    scene.peer.says = 1
    scene.rounds(ASK_AGAIN_S + SURE_S + 1)
    assert scene.is_complete


def test_what_came_earlier_in_the_series_counts(scene: Scene) -> None:
    scene.peer.says = 2
    scene.come(1, 2)
    scene.rounds(SURE_S + 1)
    assert scene.is_complete
    scene.come(3)
    scene.peer.says = 3
    scene.rounds(SURE_S + 1)
    assert scene.is_complete


def test_only_sources_that_say_so_are_asked_about(scene: Scene) -> None:
    scene.come(1, source="other")
    scene.rounds(5)
    assert scene.peer.asked == []


@pytest.mark.parametrize("asked", ["nowhere", "share"])
def test_who_cannot_be_asked_is_a_mistake_of_the_settings(node: Settings, tmp_path: Path, asked: str) -> None:
    source = msgspec.structs.replace(node.sources["pacs"], ask=asked)
    places = {**node.destinations, "share": FolderDestination(path=str(tmp_path))}
    wrong = check_across(msgspec.structs.replace(node, sources={"pacs": source}, destinations=places))
    words = f"no destination of kind dicom or dicomweb is called {asked!r}; known: pacs"
    assert [one.words for one in wrong if one.key == ("sources", "pacs", "ask")] == [words]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    if not orthanc_program():
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    with orthanc(modalities={"carina": ("CARINA", "127.0.0.1", LISTENER)}) as running:
        for file in write_ct_series(
            chest_phantom(shape=(SLICES, 64, 64), lesions=0).volume, tmp_path_factory.mktemp("ct")
        ):
            post(f"{running.http_url}/instances", file.read_bytes())
        yield running


def post(url: str, content: bytes) -> None:
    urllib.request.urlopen(urllib.request.Request(url, content, method="POST"), timeout=30).close()


@pytest.mark.parametrize("kind", ["dicom", "dicomweb"])
def test_what_orthanc_sends_is_complete_without_waiting(node: Settings, engine: Engine, pacs: Pacs, kind: str) -> None:
    peers = {
        "dicom": DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title),
        "dicomweb": DicomwebDestination(url=pacs.dicomweb_url),
    }
    asking = msgspec.structs.replace(node, destinations={"pacs": peers[kind]})
    clock = Clock()
    asker = Asker("pacs", asking, engine, clock)
    listener = DicomListener(InstanceStore(asking, engine))
    listener.start()
    try:
        with urllib.request.urlopen(f"{pacs.http_url}/series", timeout=30) as answer:
            (series,) = json.loads(answer.read())
        post(f"{pacs.http_url}/modalities/carina/store", series.encode())
    finally:
        listener.stop()
    assert arrival_states(engine) == ["arriving"]
    asker.round()
    assert complete_arrivals(asking, engine) == 0, "one answer may be half of the truth"
    clock.now_s += SURE_S
    asker.round()
    assert complete_arrivals(asking, engine) == 1


def test_orthanc_counts_as_many_one_by_one(pacs: Pacs) -> None:
    node = DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title)
    server = DicomwebDestination(url=pacs.dicomweb_url)
    (found,) = find_on_node("pacs", node, Wanted(study_uid=search_series("pacs", server, Wanted())[0].study_uid))
    listed = instances_on_node("pacs", node, found)
    assert listed == instances_on_server("pacs", server, found)
    assert len(listed) == SLICES
