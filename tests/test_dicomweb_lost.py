"""DICOMweb over stored files that don't hold any more what was recorded of them: said on every way, given on none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage
from sqlalchemy import delete

from carina.database import INSTANCE, REMOVAL
from carina.deliver.identity import file_digest
from carina.pipeline.digests import Digest
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord, State, write_manifest
from carina.service.dicomweb.reach import file_blocks
from carina.service.health import readiness
from carina.service.node import RunningNode
from carina.service.stored_files import FilesLook
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from dicomweb_studies import uids
from served_nodes import NOON, add_job, hold, opened, serving, write_result

SLICES = 4


def cut_to(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def flip(path: Path) -> None:
    """One bit, as a disk loses it: the size stays."""
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SIZED: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": cut_to(0),
    "300 bytes": cut_to(300),
    "cut short": shorten,
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(1000)),
    "a folder": put_folder,
}
DAMAGES = SIZED | {"a bit": flip}


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A node with a series and a PDF made of it: its address, each file where it is stored."""

    node: RunningNode
    root: str
    stored: Mapping[str, Path]
    files: list[Path]
    pdf: Path

    def get(self, path: str, accept: str = "") -> httpx.Response:
        return httpx.get(self.root + path, headers={"Accept": accept} if accept else {})

    @property
    def study(self) -> str:
        return f"/studies/{uids(self.files[0])[0]}"

    def address(self, file: Path) -> str:
        study, series, instance = uids(file)
        return f"/studies/{study}/series/{series}/instances/{instance}"

    def place(self, file: Path) -> Path:
        return self.stored[uids(file)[2]]


def record(run: Path, *files: Path) -> None:
    """Write the manifest of a run that says what it wrote."""
    digests = {
        file.relative_to(run).as_posix(): Digest(bytes=file.stat().st_size, sha256=file_digest(file)) for file in files
    }
    made = OperatorRecord(image="carina/report", state=State.DONE, files=digests)
    definition = DefinitionRecord(name="default", file="default.yaml", sha256="")
    write_manifest(
        Manifest(fingerprint="", started=NOON.isoformat(), definition=definition, operators={"made": made}), run
    )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    volume = chest_phantom(shape=(SLICES, 32, 32), lesions=0, seed=5).volume
    files = list(write_ct_series(volume, tmp_path / "ct", settings=SeriesSettings(patient_id="P0", shuffled=False)))
    node = opened(tmp_path)
    job = add_job(node, hold(node, files))
    pdf = write_result(node, job, files[0], EncapsulatedPDFStorage)
    record(pdf.parent.parent, pdf)
    stored = {file.stem: file for file in (node.folder / "incoming" / "1").iterdir()}
    with serving(node) as url:
        yield Kept(node=node, root=f"{url}/dicom-web", stored=stored | {uids(pdf)[2]: pdf}, files=files, pdf=pdf)


ALONE = ["", "/metadata", "/rendered", "/frames", "/frames/1", "/frames/1/rendered", "/bulkdata/00420011"]


@pytest.mark.parametrize("asked_before", [False, True])
@pytest.mark.parametrize("what", DAMAGES)
def test_an_object_whose_file_is_damaged_is_503_on_every_way_to_it(
    kept: Kept, caplog: pytest.LogCaptureFixture, what: str, *, asked_before: bool
) -> None:
    bad = kept.files[1]
    instance = uids(bad)[2]
    ways = [kept.address(bad) + tail for tail in ALONE]
    if asked_before:
        assert {kept.get(way).status_code for way in ways} == {200, 404}
    DAMAGES[what](kept.place(bad))
    answers = {way: kept.get(way) for way in ways}
    assert {way: answer.status_code for way, answer in answers.items()} == dict.fromkeys(ways, 503)
    words = f"damaged or missing on the node's disk: instance {instance}; send its series again."
    said = {(answer.json()["code"], answer.json()["detail"]) for answer in answers.values()}
    assert said == {("dicomweb.damaged", words)}
    assert [record.message for record in caplog.records if record.name.startswith("carina")] == [
        f"instance {instance} was accepted, and incoming/1/{instance}.dcm is damaged or missing on the node's disk: "
        "send its series again."
    ]
    assert kept.get(kept.address(kept.files[0])).status_code == 200


def told_in(answer: httpx.Response) -> set[str]:
    """The instances of an answer, whichever its form."""
    assert answer.status_code == 200
    if answer.headers["content-type"].startswith("multipart"):
        boundary = answer.headers["content-type"].partition("boundary=")[2]
        parts = [part.partition(b"\r\n\r\n")[2] for part in answer.content.split(f"--{boundary}".encode())[1:-1]]
        return {str(dcmread(BytesIO(part)).SOPInstanceUID) for part in parts}
    return {one["00080018"]["Value"][0] for one in answer.json()}


@pytest.mark.parametrize("what", SIZED)
def test_an_answer_for_many_leaves_out_what_is_damaged_and_says_so(kept: Kept, what: str) -> None:
    bad = uids(kept.files[1])[2]
    SIZED[what](kept.place(kept.files[1]))
    whole = {uid for uid in kept.stored if uid != bad}
    series = f"{kept.study}/series/{uids(kept.files[0])[1]}"
    for way in ("", "/metadata", "/instances"):
        for place, expected in ((kept.study, whole), (series, whole - {uids(kept.pdf)[2]})):
            answer = kept.get(place + way)
            assert told_in(answer) == expected
            warning = f'299 carina "Left out, since damaged or missing on the disk of the node: instance {bad}"'
            assert answer.headers["warning"] == warning
    assert kept.get("/studies").json()[0]["00201208"]["Value"] == [SLICES]
    other = f"{kept.study}/series/{uids(kept.pdf)[1]}"
    assert "warning" not in kept.get(f"{other}/metadata").headers
    assert kept.get(f"{kept.study}/series?Modality=CT").json()[0]["00201209"]["Value"] == [SLICES - 1]


@pytest.mark.parametrize("way", ["", "/metadata"])
def test_what_is_damaged_within_breaks_the_answer_off_once_and_is_left_out_from_then_on(kept: Kept, way: str) -> None:
    flip(kept.place(kept.files[1]))
    with pytest.raises(httpx.RemoteProtocolError):
        kept.get(kept.study + way)
    answer = kept.get(kept.study + way)
    assert uids(kept.files[1])[2] not in told_in(answer) and uids(kept.files[1])[2] in answer.headers["warning"]
    flip(kept.place(kept.files[1]))
    assert len(told_in(kept.get(kept.study + way))) == SLICES + 1


@pytest.mark.parametrize("what", SIZED)
def test_where_all_is_damaged_nothing_is_answered_with_nothing(kept: Kept, what: str) -> None:
    for path in kept.stored.values():
        SIZED[what](path)
    series = f"{kept.study}/series/{uids(kept.files[0])[1]}"
    for way in ("", "/metadata", "/instances"):
        for place in (kept.study, series):
            assert kept.get(place + way).status_code == 503
    detail = kept.get("/studies").json()["detail"]
    assert detail.startswith("damaged or missing on the node's disk: ")
    assert detail.endswith("; run the series again and send its series again.")
    assert kept.get("/studies/1.2.3/metadata").status_code == 404


@pytest.mark.parametrize("is_started_anew", [False, True])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_result_is_told_by_itself_or_by_its_job(kept: Kept, what: str, *, is_started_anew: bool) -> None:
    """Its UIDs are nowhere but in it, and in the memory of a node that has read it."""
    if not is_started_anew:
        assert kept.get(kept.address(kept.pdf)).status_code == 200
    address = kept.address(kept.pdf)
    DAMAGES[what](kept.pdf)
    for tail in ("", "/metadata", "/rendered", "/bulkdata/00420011"):
        answer = kept.get(address + tail)
        assert (answer.status_code, tail) == (503, tail)
        assert answer.json()["detail"].endswith("; run the series again.")
    answer = kept.get(f"{kept.study}/instances")
    assert len(told_in(answer)) == SLICES and "disk of the node: " in answer.headers["warning"]
    assert kept.get(f"{kept.study}/series/{uids(kept.files[0])[1]}").status_code == 200


def damaged_in(node: RunningNode) -> list[str]:
    return [one for one in readiness(node).warnings if one.startswith("disk: ")]


def put_back(path: Path, content: bytes) -> None:
    if path.is_dir():
        path.rmdir()
    path.write_bytes(content)


@pytest.mark.parametrize("what", SIZED)
@pytest.mark.parametrize("asked", [False, True])
def test_health_says_it_whether_somebody_asks_or_not_until_it_is_right_again(
    kept: Kept, what: str, *, asked: bool
) -> None:
    look = FilesLook(kept.node)
    look.round()
    assert not damaged_in(kept.node)
    contents = {path: path.read_bytes() for path in (kept.place(kept.files[1]), kept.pdf)}
    for path in contents:
        SIZED[what](path)
    if asked:
        assert kept.get(kept.study).status_code == 200
    else:
        look.round()
    words = "stored file(s) of what was accepted or made are damaged or missing: the log names them, and what helps"
    assert damaged_in(kept.node) == [f"disk: 2 {words}"]
    for path, content in contents.items():
        put_back(path, content)
    look.round()
    assert not damaged_in(kept.node)
    assert len(told_in(kept.get(kept.study))) == SLICES + 1


def test_what_was_removed_or_replaced_is_not_lost(kept: Kept) -> None:
    look = FilesLook(kept.node)
    for path in kept.stored.values():
        path.unlink()
    look.round()
    assert len(kept.node.damaged) == SLICES + 1
    with kept.node.engine.begin() as connection:
        connection.execute(delete(INSTANCE))
        row = {"kind": "run", "subject_id": 1, "why": "old", "begun_at": NOON}
        connection.execute(REMOVAL.insert().values(row))
    look.round()
    assert not kept.node.damaged
    assert kept.get(kept.study).status_code == 404
    assert kept.get("/studies").json() == []


def test_of_two_files_with_one_content_that_which_is_whole_is_given(tmp_path: Path) -> None:
    """The same series came by two sources."""
    volume = chest_phantom(shape=(3, 32, 32), lesions=0, seed=5).volume
    files = list(write_ct_series(volume, tmp_path / "ct"))
    node = opened(tmp_path)
    for source in ("scanner", "archive"):
        hold(node, files, source=source)
    next((node.folder / "incoming" / "2").iterdir()).unlink()
    with serving(node) as url:
        answer = httpx.get(f"{url}/dicom-web/studies/{uids(files[0])[0]}")
        assert len(told_in(answer)) == 3 and "warning" not in answer.headers


def test_files_that_vanish_while_they_are_given_break_an_answer_off_or_are_left_out(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slowly(path: Path, size: int) -> Iterator[bytes]:
        yield from file_blocks(path, size)
        begun.set()
        for one in list(kept.stored.values())[1:]:
            one.unlink(missing_ok=True)

    monkeypatch.setattr("carina.service.dicomweb.wado.file_blocks", slowly)
    with pytest.raises(httpx.RemoteProtocolError):
        kept.get(kept.study)
    assert begun.is_set()
    assert len(told_in(kept.get(kept.study))) == 1
