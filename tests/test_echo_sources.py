"""``carina echo`` of sources: our own side is tried, callers with a known address are asked, of others is said why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from carina.config import (
    DicomDestination,
    DicomSettings,
    DicomSource,
    DicomwebDestination,
    DicomwebSource,
    FolderSource,
    NodeSettings,
    Settings,
)
from carina.database import open_database, upgrade_schema
from carina.errors import DeliveryFailed
from carina.receive.listener import DicomListener
from carina.receive.source_echo import reach_of
from carina.receive.store import InstanceStore
from carina.service.changes import echo_source
from carina.service.problems import NotThere
from carina.testing.difficult_pacs import DifficultPacs
from carina.testing.pacs import memory_pacs
from carina.testing.ports import free_port
from carina.web_settings import TlsSettings
from served_nodes import opened, serving


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0),
        dicom=DicomSettings(port=free_port()),
        sources={
            "any": DicomSource(ae_title="ANY"),
            "ward": DicomSource(ae_title="WARD", callers=("CT1", "PACS"), addresses=("127.0.0.0/8",)),
            "far": DicomSource(ae_title="FAR", callers=("CT1",), addresses=("192.0.2.0/24",)),
            "drop": FolderSource(path=str(tmp_path)),
            "gone": FolderSource(path=str(tmp_path / "gone")),
        },
    )


@pytest.fixture
def listening(settings: Settings) -> Iterator[Settings]:
    engine = open_database(f"sqlite:///{settings.node.folder}/n.sqlite")
    upgrade_schema(engine)
    listener = DicomListener(InstanceStore(settings, engine))
    listener.start()
    yield settings
    listener.stop()
    engine.dispose()


def told(name: str, settings: Settings) -> list[tuple[str, bool]]:
    where = f"@127.0.0.1:{settings.dicom.port}"
    return [(one.words.replace(where, ""), one.is_well) for one in reach_of(name, settings)]


def test_who_may_send_is_answered_and_who_can_be_asked_is_asked(listening: Settings) -> None:
    with memory_pacs(ae_title="PACS") as pacs:
        archive = DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title="PACS")
        known = msgspec.structs.replace(listening, destinations={"archive": archive})
        assert told("ward", known) == [
            ("ward (WARD): this node listens there, and answers a DICOM echo of CT1.", True),
            ("ward: CT1 can't be asked: no destination has its address. Send an echo from it.", True),
            ("ward: PACS, which is destination archive, answers.", True),
        ]
        twins = msgspec.structs.replace(known, destinations={"archive": archive, "second": archive})
        assert [words for words, _ in told("ward", twins)][2:] == [
            "ward: PACS, which is destination archive, answers.",
            "ward: PACS, which is destination second, answers.",
        ]
    (_, _, (words, is_well)) = told("ward", known)
    assert words.startswith("ward: PACS does not answer: archive (PACS@127.0.0.1:")
    assert not is_well


def test_of_a_door_for_everybody_and_of_one_for_others_is_said_what_can_be(listening: Settings) -> None:
    assert told("any", listening) == [
        ("any (ANY): this node listens there, and answers a DICOM echo of CARINA.", True),
        ("any: whether a scanner or PACS reaches it only they can tell: send a DICOM echo from there.", True),
    ]
    assert told("far", listening)[0] == (
        "far (FAR): takes connections; this machine may not send, so it was not asked more.",
        True,
    )


def test_tls_is_said_and_not_guessed_at(listening: Settings) -> None:
    tls = TlsSettings(certificate="c", key="k")
    secured = msgspec.structs.replace(listening, dicom=msgspec.structs.replace(listening.dicom, tls=tls))
    assert told("any", secured)[0] == (
        "any (ANY): takes connections, by TLS alone; what it answers is seen from a sender.",
        True,
    )


def test_a_node_that_does_not_run_is_said(settings: Settings) -> None:
    assert told("any", settings)[0] == ("any (ANY): nothing listens there; is carina serve running?", False)
    web = msgspec.structs.replace(settings, sources={"web": DicomwebSource()})
    web = msgspec.structs.replace(web, web=msgspec.structs.replace(web.web, port=free_port()))
    assert told("web", web) == [
        (f"web (127.0.0.1:{web.web.port}): nothing listens there; is carina serve running?", False)
    ]


def test_a_folder_is_looked_at(settings: Settings, tmp_path: Path) -> None:
    assert told("drop", settings) == [(f"drop: folder {tmp_path} can be read.", True)]
    assert told("gone", settings) == [
        (f"gone: folder {tmp_path}/gone can't be read: make it, or let the node read it.", False)
    ]


def test_who_is_asked_about_series_and_earlier_scans_gets_a_query(settings: Settings) -> None:
    pacs, mute = DifficultPacs(), DifficultPacs(ae_title="MUTE", answers_queries=False)
    known = {
        "archive": DicomDestination(host="127.0.0.1", port=pacs.port, ae_title="DIFFICULT"),
        "mute": DicomDestination(host="127.0.0.1", port=mute.port, ae_title="MUTE"),
        "web": DicomwebDestination(url=f"http://127.0.0.1:{free_port()}/dicom-web"),
    }
    of = settings.sources["drop"]
    asking = {
        "one": msgspec.structs.replace(of, ask="archive", earlier="archive"),
        "two": msgspec.structs.replace(of, ask="archive", earlier="mute"),
        "far": msgspec.structs.replace(of, earlier="web"),
    }
    both = msgspec.structs.replace(settings, destinations=known, sources=asking)
    pacs.up()
    mute.up()
    try:
        assert told("one", both)[1:] == [("one: archive, its ask and earlier, answers a query.", True)]
        assert not pacs.stored and not pacs.requests
        (answered, (words, is_well)) = told("two", both)[1:]
    finally:
        pacs.down()
        mute.down()
    assert answered == ("two: archive, its ask, answers a query.", True) and not is_well
    assert words.startswith(f"two: earlier would have no answer: mute (MUTE@127.0.0.1:{mute.port})")
    (_, (words, is_well)) = told("far", both)
    assert words.startswith("far: earlier would have no answer: web (http://127.0.0.1:") and not is_well


def test_the_page_of_a_node_tries_its_sources(tmp_path: Path) -> None:
    node = opened(tmp_path, '[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\n')
    with serving(node) as url:
        assert "Echo source scanner" in httpx.get(url).text
        with pytest.raises(DeliveryFailed, match=r"scanner \(CARINA@127.0.0.1:\d+\): nothing listens there"):
            echo_source(node, "scanner")
        with pytest.raises(NotThere, match="no source is called 'nope'"):
            echo_source(node, "nope")
