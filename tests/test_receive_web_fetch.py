"""Pulling over DICOMweb: from a real Orthanc, and from a server that does what no server should."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import Engine, select

from called import called
from carina.config import DicomSettings, DicomSource, DicomwebDestination, NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE
from carina.deliver.paced_http import LEAST_PROGRESS, PacedBytes
from carina.errors import BadConfig, DeliveryFailed
from carina.receive.complete import complete_arrivals
from carina.receive.fetch import FoundSeries, Wanted
from carina.receive.pull import find_at, pull
from carina.receive.store import InstanceStore
from carina.receive.web_fetch import retrieve_series
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from web_answers import Answer, answering, drip, half, head

STUDY, SERIES = "1.2.3", "1.2.3.4"
FOUND = FoundSeries(study_uid=STUDY, series_uid=SERIES, study_date="20260101", description="", instances=8)


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), database=f"sqlite:///{tmp_path}/n.sqlite", free_gb=0),
        dicom=DicomSettings(instance_mb=1),
        sources={"pulled": DicomSource(ae_title="CARINA", quiet_s=3600)},
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Eight slices of one series."""
    made = []
    for file in write_ct_series(chest_phantom(shape=(8, 64, 64), lesions=0).volume, tmp_path / "ct"):
        dataset = dcmread(file)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
        dataset.save_as(file)
        made.append(file)
    return made


def arrivals(engine: Engine) -> list[tuple[str, str, int, str]]:
    with engine.connect() as connection:
        wanted = select(ARRIVAL.c.source, ARRIVAL.c.sender, ARRIVAL.c.expected, ARRIVAL.c.state)
        return [tuple(row) for row in connection.execute(wanted.join(INSTANCE, INSTANCE.c.arrival_id == ARRIVAL.c.id))]


def leftovers(node: Settings) -> list[Path]:
    return list((Path(node.node.folder) / "incoming" / ".parts").glob("*"))


MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'
PART = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"


def body(contents: Iterable[bytes]) -> Iterator[bytes]:
    yield head(MULTIPART)
    for content in contents:
        yield PART + content
    yield b"\r\n--b--\r\n"


# Orthanc


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    if not orthanc_program():
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    with orthanc() as running:
        for number in (1, 2):
            folder = tmp_path_factory.mktemp(f"study{number}")
            syntax = "RLELossless" if number == 2 else "ExplicitVRLittleEndian"
            for file in write_ct_series(chest_phantom(shape=(8, 64, 64), lesions=0, seed=number).volume, folder):
                dataset = dcmread(file)
                dataset.AccessionNumber, dataset.StudyDate, dataset.PatientID = f"A{number}", f"2026010{number}", "P 1"
                if syntax == "RLELossless":
                    dataset.compress("1.2.840.10008.1.2.5")
                dataset.save_as(file)
                request = urllib.request.Request(f"{running.http_url}/instances", file.read_bytes(), method="POST")
                urllib.request.urlopen(request, timeout=30).close()
        yield running


def test_a_study_comes_from_orthanc_as_it_is_stored_there(pacs: Pacs, node: Settings, engine: Engine) -> None:
    peer = DicomwebDestination(url=pacs.dicomweb_url)
    (found,) = find_at("pacs", peer, Wanted(accession="A2"))
    assert (found.study_date, found.instances) == ("20260102", 8)
    (pulled,) = pull("pacs", peer, [found], InstanceStore(node, engine), "pulled")
    assert (pulled.is_whole, pulled.words) == (True, f"series {found.series_uid}: 8 of 8 instances")
    assert arrivals(engine) == [("pulled", pacs.dicomweb_url.split("/")[2], 8, "arriving")] * 8
    with engine.connect() as connection:
        kept = connection.execute(select(INSTANCE.c.path, INSTANCE.c.sop_instance_uid)).all()
    for path, uid in kept:
        ours, theirs = (Path(node.node.folder) / path).read_bytes(), pacs.fetch(uid)
        assert dcmread(Path(node.node.folder) / path).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
        assert ours[-4000:] == theirs[-4000:]
    assert not leftovers(node)


def test_a_fetched_series_is_complete_at_once(pacs: Pacs, node: Settings, engine: Engine) -> None:
    peer = DicomwebDestination(url=pacs.dicomweb_url)
    list(pull("pacs", peer, find_at("pacs", peer, Wanted(accession="A1")), InstanceStore(node, engine), "pulled"))
    assert complete_arrivals(node, engine) == 1  # its source is quiet for an hour first


def test_a_patients_studies_are_found_at_orthanc_the_latest_first(pacs: Pacs) -> None:
    peer = DicomwebDestination(url=pacs.dicomweb_url)
    assert [one.study_date for one in find_at("pacs", peer, Wanted(patient_id="P 1"))] == ["20260102", "20260101"]
    assert find_at("pacs", peer, Wanted(patient_id="P  1")) == ()
    assert find_at("pacs", peer, Wanted(accession="NONE")) == ()
    (one,) = find_at("pacs", peer, Wanted(accession="A1"))
    assert find_at("pacs", peer, Wanted(accession="A1", series_uid="1.2.3")) == ()
    assert find_at("pacs", peer, Wanted(study_uid=one.study_uid, series_uid=one.series_uid)) == (one,)


def test_the_command_fetches_from_a_dicomweb_server(pacs: Pacs, tmp_path: Path) -> None:
    (tmp_path / "carina.toml").write_text(
        f'[node]\nfree_gb = 0\n[sources.pulled]\nkind = "dicom"\nae_title = "CARINA"\n[destinations.web]\n'
        f'kind = "dicomweb"\nurl = "{pacs.dicomweb_url}"\n'
    )

    def carina(*words: str) -> subprocess.CompletedProcess[str]:
        return called("fetch", "web", *words, folder=tmp_path)

    done = carina("--accession", "A1")
    assert (done.returncode, done.stdout.strip().endswith("8 of 8 instances")) == (0, True), done.stderr
    moved = carina("--accession", "A1", "--move")
    assert (moved.returncode, "a DICOMweb server moves nothing" in moved.stderr) == (4, True), moved.stderr


# A server that misbehaves


def test_what_came_before_a_body_breaks_off_is_kept(node: Settings, engine: Engine, files: list[Path]) -> None:
    def broken(_: str) -> Answer:
        yield from [head(MULTIPART), *(PART + file.read_bytes() for file in files[:3]), PART + b"DI"]

    with answering(broken) as server, pytest.raises(DeliveryFailed, match="the body ends before its closing boundary"):
        retrieve_series("web", server, FOUND, InstanceStore(node, engine), "pulled")
    assert len(arrivals(engine)) == 3
    with answering(lambda _: body(file.read_bytes() for file in files)) as server:
        fetched = retrieve_series("web", server, FOUND, InstanceStore(node, engine), "pulled")
    assert (fetched.accepted, fetched.refused) == (8, [])
    assert len(arrivals(engine)) == 8
    assert not leftovers(node)


def test_instances_of_another_series_and_other_things_are_refused_one_by_one(
    node: Settings, engine: Engine, files: list[Path]
) -> None:
    contents = [files[0].read_bytes(), b"no DICOM at all", files[1].read_bytes().replace(b"1.2.3.4", b"1.2.3.5")]
    parts = [*[*body(contents)][:-1], b"\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>", b"\r\n--b--\r\n"]
    with answering(lambda _: parts) as server:
        fetched = retrieve_series("web", server, FOUND, InstanceStore(node, engine), "pulled")
    assert fetched.accepted == 1
    assert [words.split(": ")[-1] for words in fetched.refused] == [
        "a file is no DICOM instance.",
        "it is of another series than was asked for.",
        "a part is 'text/html'; expected application/dicom.",
    ]


def endless(kind: bytes) -> Answer:
    yield head(MULTIPART) + b"\r\n--b\r\nContent-Type: " + kind + b"\r\n\r\n"
    while True:
        yield b"\x00" * LEAST_PROGRESS


MISBEHAVING: dict[str, tuple[Callable[[], Answer], str]] = {
    "endless part": (lambda: endless(b"application/dicom"), r"over the limit of 1 MB \(dicom.instance_mb\)"),
    "endless other part": (lambda: endless(b"text/plain"), r"over the limit of 1 MB \(dicom.instance_mb\)"),
    "redirect": (lambda: [head("text/plain", 302, "Location: http://127.0.0.1:9/\r\n")], "WADO-RS answered 302 Found"),
    "not found": (lambda: [head("text/plain", 404)], "WADO-RS answered 404 Not Found: check its URL, user or token"),
    "nothing": (lambda: [head("text/plain", 204)], "WADO-RS answered 204"),
    "a page": (lambda: [head("text/html"), b"<p>log in"], "Content-Type: 'text/html'; expected multipart/related"),
    "packed": (lambda: [head(MULTIPART, 200, "Content-Encoding: gzip\r\n")], "in the encoding 'gzip'; expected none"),
    "no boundary": (lambda: [head("multipart/related"), b"x"], "boundary ''; expected 1 to 200 characters"),
    "no HTTP": (
        lambda: [b"SSH-2.0-OpenSSH\r\n"],
        "can't be reached: it speaks no HTTP as it should \\(BadStatusLine\\)",
    ),
    "hangs up": (list, "can't be reached"),
    "long header": (
        lambda: [b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000],
        "it speaks no HTTP as it should \\(LineTooLong\\)",
    ),
    "many headers": (
        lambda: [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"],
        "it speaks no HTTP as it should \\(HTTPException\\)",
    ),
    "bad chunk": (
        lambda: [head(MULTIPART, 200, "Transfer-Encoding: chunked\r\n"), b"zz\r\n"],
        r"it speaks no HTTP as it should \(IncompleteRead\)",
    ),
    "slow body": (
        lambda: drip(head(MULTIPART)),
        r"it began to answer, then only \d+ bytes came in .* Try again, or allow it more time: timeout_s\.$",
    ),
    "half a body": (lambda: half(head(MULTIPART)), "it began to answer, then timed out. Try again, or allow it more"),
    "slow head": (lambda: drip(b"HTTP/1.1 200 OK\r\nX: "), r"can't be reached: only \d+ bytes came in"),
}


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_server_that_misbehaves_is_one_line(node: Settings, engine: Engine, name: str) -> None:
    answer, words = MISBEHAVING[name]
    with answering(lambda _: answer(), timeout_s=0.3) as server, pytest.raises(DeliveryFailed, match=words) as said:
        retrieve_series("web", server, FOUND, InstanceStore(node, engine), "pulled")
    assert "\n" not in said.value.message
    assert not leftovers(node)
    assert not arrivals(engine)


def test_a_full_disk_ends_the_answer(node: Settings, engine: Engine, files: list[Path]) -> None:
    asked = NodeSettings(folder=node.node.folder, database=node.node.database, free_gb=10**9)
    full = Settings(node=asked, dicom=node.dicom, sources=node.sources)
    with (
        answering(lambda _: body(file.read_bytes() for file in files)) as server,
        pytest.raises(DeliveryFailed, match=r"GB are to stay free \(node.free_gb\): make room"),
    ):
        retrieve_series("web", server, FOUND, InstanceStore(full, engine), "pulled")


def test_what_is_slow_but_comes_is_waited_for() -> None:
    class Slow:
        now_s = 0.0

        def readinto(self, buffer: bytearray) -> int:
            self.now_s += 0.9
            return len(buffer)

    slow = Slow()
    bytes_ = PacedBytes(slow, 1.0, lambda: slow.now_s)
    for _ in range(20):
        assert bytes_.readinto(bytearray(LEAST_PROGRESS // 2)) == LEAST_PROGRESS // 2
    with pytest.raises(TimeoutError, match=r"only \d+ bytes came in 3 s"):
        for _ in range(4):
            bytes_.readinto(bytearray(1))


def test_a_series_is_moved_by_dicom_nodes_only(node: Settings, engine: Engine) -> None:
    server = DicomwebDestination(url="http://127.0.0.1:9/web")
    with pytest.raises(BadConfig, match=r"destinations\.web: a DICOMweb server moves nothing"):
        list(pull("web", server, [FOUND], InstanceStore(node, engine), "pulled", is_moved=True))
