"""Pulling from a real Orthanc: series are found, got and moved, and what goes wrong is one line."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000, UID, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from sqlalchemy import Engine, delete, select

from called import called
from carina.config import DicomDestination, DicomSettings, DicomSource, NodeSettings, Settings
from carina.database import ARRIVAL, AUDIT, INSTANCE, open_database
from carina.errors import BadConfig, DeliveryFailed
from carina.jobs.places import DATABASE
from carina.receive.fetch import TAKEN, Wanted, find_on_node, get_series, instances_on_node, move_series
from carina.receive.instance import Arriving, NotAccepted
from carina.receive.listener import DicomListener
from carina.receive.pull import peer_called, pull, source_called
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from carina.testing.ports import free_port

pytestmark = pytest.mark.skipif(
    not orthanc_program(), reason="Orthanc is not installed; on Debian: apt-get install orthanc"
)
LISTENER = free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    with orthanc(modalities={"carina": ("CARINA", "127.0.0.1", LISTENER)}) as running:
        for number in (1, 2):
            folder = tmp_path_factory.mktemp(f"study{number}")
            for file in write_ct_series(chest_phantom(shape=(8, 64, 64), lesions=0, seed=number).volume, folder):
                dataset = dcmread(file)
                dataset.AccessionNumber, dataset.StudyDate, dataset.PatientID = f"A{number}", f"2026010{number}", "P"
                dataset.save_as(file)
                give(running, file)
        yield running


def give(pacs: Pacs, file: Path) -> None:
    request = urllib.request.Request(f"{pacs.http_url}/instances", file.read_bytes(), method="POST")
    urllib.request.urlopen(request, timeout=30).close()


@pytest.fixture
def node(tmp_path: Path, pacs: Pacs) -> Settings:
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), database=f"sqlite:///{tmp_path}/n.sqlite", free_gb=0),
        dicom=DicomSettings(port=LISTENER),
        sources={"pulled": DicomSource(ae_title="CARINA")},
        destinations={"pacs": DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title)},
    )


def pacs_of(node: Settings) -> DicomDestination:
    peer = peer_called("pacs", node)
    assert isinstance(peer, DicomDestination)
    return peer


def stored(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        wanted = select(ARRIVAL.c.source, ARRIVAL.c.sender).join(INSTANCE, INSTANCE.c.arrival_id == ARRIVAL.c.id)
        return [tuple(row) for row in connection.execute(wanted)]


def test_one_study_is_found_by_accession_and_got(node: Settings, engine: Engine) -> None:
    peer = pacs_of(node)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A2"))
    assert (found.study_date, found.instances) == ("20260102", 8)
    (pulled,) = pull("pacs", peer, [found], InstanceStore(node, engine), source_called("", node))
    assert pulled.is_whole
    assert pulled.words.endswith(": 8 of 8 instances")
    assert stored(engine) == [("pulled", f"{peer.ae_title}@127.0.0.1")] * 8


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1, RLELossless, JPEGLSLossless, JPEG2000])
def test_what_is_stored_compressed_is_got_as_it_is(
    node: Settings, engine: Engine, pacs: Pacs, tmp_path: Path, syntax: UID
) -> None:
    """Orthanc accepts the first syntax of a context, and can't write it from what it has stored in JPEG 2000."""
    number = syntax.rpartition(".")[2]
    content = chest_phantom(shape=(4, 64, 64), lesions=0, seed=int(number)).volume
    written = JPEG2000Lossless if syntax == JPEG2000 else syntax
    files = write_ct_series(content, tmp_path / "ct", settings=SeriesSettings(transfer_syntax=written))
    for file in files:
        dataset = dcmread(file)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.7.{number}", f"2.25.8.{number}"
        dataset.SOPInstanceUID = f"2.25.9.{number}.{dataset.InstanceNumber}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(file)
        give(pacs, file)
    peer, store = pacs_of(node), InstanceStore(node, engine)
    (found,) = find_on_node("pacs", peer, Wanted(study_uid=f"2.25.7.{number}"))
    (pulled,) = pull("pacs", peer, [found], store, source_called("", node))
    assert pulled.words.endswith(": 4 of 4 instances")
    sent = {str(one.SOPInstanceUID): one.PixelData for one in map(dcmread, files)}
    came = [dcmread(file) for file in store.folder.rglob("*.dcm")]
    assert {str(one.SOPInstanceUID): one.PixelData for one in came} == sent
    assert {one.file_meta.TransferSyntaxUID for one in came} == {syntax}


def test_the_contexts_of_a_fetch_fit_one_association() -> None:
    assert len(TAKEN) < 128
    assert {len(syntaxes) for _, syntaxes in TAKEN} == {1}


def test_a_get_that_fails_says_how_else_it_can_be_fetched(node: Settings, engine: Engine) -> None:
    peer = pacs_of(node)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A1"))
    gone = replace(found, series_uid="2.25.99")
    with pytest.raises(DeliveryFailed, match=r"C-GET failed \(.*\); `carina fetch --move` \(.*\) has it send to our"):
        get_series("pacs", peer, gone, InstanceStore(node, engine), "pulled")


def test_a_patients_studies_are_found_the_latest_first(node: Settings) -> None:
    found = find_on_node("pacs", pacs_of(node), Wanted(patient_id="P"))
    assert [one.study_date for one in found] == ["20260102", "20260101"]
    assert find_on_node("pacs", pacs_of(node), Wanted(accession="NONE")) == ()


def test_a_prior_is_moved_to_our_listener(node: Settings, engine: Engine) -> None:
    peer = pacs_of(node)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A1"))
    listener = DicomListener(InstanceStore(node, engine))
    listener.start()
    try:
        assert move_series("pacs", peer, found, "CARINA") == 8
    finally:
        listener.stop()
    assert len(stored(engine)) == 8


@pytest.mark.parametrize("first", ["move", "get", "some"])
def test_what_is_moved_again_is_said_to_be_here(node: Settings, engine: Engine, first: str) -> None:
    """Whichever way it came before, and only as many as came."""
    peer, store = pacs_of(node), InstanceStore(node, engine)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A1"))
    listener = DicomListener(store)
    listener.start()

    def fetch(*, is_moved: bool) -> str:
        (pulled,) = pull("pacs", peer, [found], store, "pulled", is_moved=is_moved)
        assert pulled.is_whole
        return pulled.words.partition(": ")[2]

    try:
        assert fetch(is_moved=first != "get") == "8 of 8 instances"
        if first == "some":
            with engine.begin() as connection:
                connection.execute(delete(INSTANCE).where(INSTANCE.c.id <= 3))
        here = 5 if first == "some" else 8
        assert fetch(is_moved=True) == f"8 of 8 instances; already here: {here}"
    finally:
        listener.stop()
    assert len(stored(engine)) == 8


def test_what_cannot_be_fetched_is_one_line(node: Settings, tmp_path: Path) -> None:
    peer = pacs_of(node)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A1"))
    with pytest.raises(
        DeliveryFailed, match=r"pacs .*: C-MOVE to NOBODY failed .*; does it know us\? .*while carina serve runs"
    ):
        move_series("pacs", peer, found, "NOBODY")
    away = DicomDestination(host="127.0.0.1", port=free_port(), ae_title="AWAY")
    with pytest.raises(DeliveryFailed, match="nothing answers there"):
        find_on_node("away", away, Wanted(accession="A1"))
    with pytest.raises(BadConfig, match=r"destinations\.x: no DICOM node is called so; known: pacs"):
        peer_called("x", node)
    with pytest.raises(BadConfig, match=r"sources\.x: not in the settings; known: pulled"):
        source_called("x", node)


def test_the_command_fetches(pacs: Pacs, tmp_path: Path) -> None:
    (tmp_path / "carina.toml").write_text(
        f'[node]\nfree_gb = 0\n[sources.pulled]\nkind = "dicom"\nae_title = "CARINA"\n[destinations.pacs]\n'
        f'kind = "dicom"\nhost = "{pacs.host}"\nport = {pacs.dicom_port}\nae_title = "{pacs.ae_title}"\n'
    )

    def carina(*words: str) -> subprocess.CompletedProcess[str]:
        return called("fetch", "pacs", *words, folder=tmp_path)

    listed = carina("--patient", "P", "--list")
    assert "20260101" in listed.stdout
    assert len(seen := looked_at(tmp_path)) == len(listed.stdout.splitlines()) - 1
    assert all(one.split()[1] in listed.stdout for one in seen)
    assert all(re.fullmatch(r"series [0-9.]+ of pacs: listed", one) for one in seen), "no patient's ID"
    for end in ("8 of 8 instances", "8 of 8 instances; already here: 8"):
        done = carina("--accession", "A1")
        assert (done.returncode, done.stdout.strip().endswith(end)) == (0, True), done.stderr
    assert carina().returncode == 2


def test_what_is_not_here_is_named_with_its_reason(
    node: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One instance is refused, one the node counts and does not send."""
    peer, store = pacs_of(node), InstanceStore(node, engine)
    (found,) = find_on_node("pacs", peer, Wanted(accession="A1"))
    listed = sorted(instances_on_node("pacs", peer, found))
    accept = store.accept

    def all_but_one(arriving: Arriving, origin: SentBy) -> Accepted:
        if arriving.sop_instance_uid == listed[0]:
            raise NotAccepted(0xC000, "receive.test", f"instance {listed[0]}: no.")
        return accept(arriving, origin)

    monkeypatch.setattr(store, "accept", all_but_one)
    (pulled,) = pull("pacs", peer, [replace(found, instances=9)], store, "pulled")
    counts = "pacs lists no instance that it did not send: it counts 9, and has 8"
    assert pulled.words == f"series {found.series_uid}: 7 of 9 instances; refused: instance {listed[0]}: no.; {counts}"
    more = frozenset({*listed, "1.2.3.4"})
    monkeypatch.setattr("carina.receive.pull.instances_on_node", lambda *_: more)
    (pulled,) = pull("pacs", peer, [replace(found, instances=9)], store, "pulled")
    assert not pulled.is_whole
    assert "; already here: 7; " in pulled.words
    assert "; pacs did not send 1.2.3.4 (" in pulled.words


def looked_at(folder: Path) -> list[str]:
    """What the audit trail of the node in a folder says that somebody looked at."""
    engine = open_database(f"sqlite:///{next(folder.rglob(DATABASE))}")
    with engine.connect() as connection:
        seen = list(connection.execute(select(AUDIT.c.subject).where(AUDIT.c.action == "looked")).scalars())
    engine.dispose()
    return seen


def test_a_pacs_that_lets_us_only_store_is_said_to(node: Settings) -> None:
    """Orthanc answers an echo of whoever comes, and ends the association of a query by a title that it doesn't know."""
    with orthanc(settings={"DicomAlwaysAllowFind": False}) as strict:
        peer = DicomDestination(host=strict.host, port=strict.dicom_port, ae_title="ORTHANC", calling_ae_title="X")
        with pytest.raises(DeliveryFailed, match=r"ended before the answer: see whether it lets X query, or try again"):
            find_on_node("pacs", peer, Wanted(patient_id="P"))


def test_a_fetch_that_finds_nothing_is_no_success(node: Settings, tmp_path: Path) -> None:
    peer = node.destinations["pacs"]
    assert isinstance(peer, DicomDestination)
    (tmp_path / "carina.toml").write_text(
        '[sources.pulled]\nkind = "dicom"\nae_title = "CARINA"\n'
        f'[destinations.pacs]\nkind = "dicom"\nhost = "127.0.0.1"\nport = {peer.port}\nae_title = "ORTHANC"\n'
    )
    for more in ((), ("--list",)):
        done = called("fetch", "pacs", "--accession", "NOWHERE", *more, folder=tmp_path)
        assert (done.returncode, done.stderr) == (3, "pacs: no CT series there fits what was asked for.\n")
