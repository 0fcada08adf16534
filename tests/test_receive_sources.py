"""The same series by several doors: each source runs it, none of them twice, and a repetition is known as one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)
from sqlalchemy import Engine, select

from carina.config import DicomSettings, DicomSource, DicomwebSource, FolderDestination, NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE, JOB, database_now, open_database, upgrade_schema
from carina.jobs.intake import take_up
from carina.receive.complete import complete_arrivals
from carina.receive.files import arriving_file, read_says
from carina.receive.listener import DicomListener
from carina.receive.same_instance import is_same_object
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port
from receiving import storescu

QUIET_S = 0.001


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    write_ct_series(chest_phantom(shape=(40, 192, 192), lesions=0).volume, tmp_path / "ct")
    return sorted((tmp_path / "ct").glob("*.dcm"), key=lambda file: float(dcmread(file).ImagePositionPatient[2]))


@pytest.fixture
def node(tmp_path: Path) -> Settings:
    (tmp_path / "node").mkdir()
    return Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0),
        dicom=DicomSettings(port=free_port()),
        sources={
            "one": DicomSource(ae_title="ONE", quiet_s=QUIET_S, destinations=("here",)),
            "two": DicomSource(ae_title="TWO", quiet_s=QUIET_S, destinations=("there",)),
            "web": DicomwebSource(quiet_s=QUIET_S),
        },
        destinations={name: FolderDestination(path=str(tmp_path / name)) for name in ("here", "there")},
    )


@pytest.fixture
def engine(node_database: str) -> Iterator[Engine]:
    made = open_database(node_database)
    upgrade_schema(made)
    yield made
    made.dispose()


def post(store: InstanceStore, files: list[Path]) -> int:
    parts = [b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() for file in files]
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    return store_over_the_web(
        store, StowRequest(origin=SentBy("web", "x"), content_type=kind), [*parts, b"\r\n--b--"]
    ).status


def bring(store: InstanceStore, file: Path, source: str) -> Accepted:
    says = read_says(file)
    with arriving_file(file, says) as arriving:
        return store.accept(arriving, SentBy(source, "CT1@127.0.0.1"))


def jobs(node: Settings, engine: Engine) -> list[tuple[str, str, str]]:
    """Every job's source, destinations and state, after what has come was taken up."""
    complete_arrivals(node, engine)
    with engine.begin() as connection:
        take_up(connection, node, database_now(connection))
        wanted = select(ARRIVAL.c.source, JOB.c.destinations, JOB.c.state).join(ARRIVAL).order_by(JOB.c.id)
        return [tuple(row) for row in connection.execute(wanted)]


def test_every_door_runs_the_series_that_came_by_it(node: Settings, engine: Engine, series: list[Path]) -> None:
    store = InstanceStore(node, engine)
    listener = DicomListener(store)
    listener.start()
    try:
        for called in ("ONE", "TWO", "TWO", "ONE"):
            assert storescu(listener.port, str(series[0].parent), called=called).returncode == 0
    finally:
        listener.stop()
    for _ in range(2):
        assert post(store, series) == 200
    waiting = "pending"
    expected = [("one", '["here"]', waiting), ("two", '["there"]', waiting), ("web", "[]", waiting)]
    assert jobs(node, engine) == expected
    with engine.connect() as connection:
        paths = list(connection.execute(select(INSTANCE.c.path)).scalars())
    assert len(set(paths)) == 3 * len(series)
    assert all((Path(node.node.folder) / path).is_file() for path in paths)


def test_more_by_one_door_supersedes_the_job_of_that_door_alone(
    node: Settings, engine: Engine, series: list[Path]
) -> None:
    store = InstanceStore(node, engine)
    for source in ("one", "two"):
        for file in series[:-2]:
            bring(store, file, source)
    assert [state for _, _, state in jobs(node, engine)] == ["pending", "pending"]
    for file in series[-2:]:
        bring(store, file, "two")
    found = [(source, state) for source, _, state in jobs(node, engine)]
    assert found == [("one", "pending"), ("two", "stopped"), ("two", "pending")]


def encoded_anew(file: Path, folder: Path, *, implicit: bool, undefined: bool, **changes: object) -> Path:
    dataset = dcmread(file)
    item = Dataset()
    item.CodeValue = "T-D3000"
    dataset.AnatomicRegionSequence = [item]
    dataset["AnatomicRegionSequence"].is_undefined_length = undefined
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    target = folder / f"{implicit}{undefined}{len(changes)}.dcm"
    dataset.save_as(target, enforce_file_format=True, implicit_vr=implicit, little_endian=True)
    return target


def test_another_encoding_is_no_other_content(
    node: Settings, engine: Engine, series: list[Path], tmp_path: Path
) -> None:
    store = InstanceStore(node, engine)
    first = encoded_anew(series[0], tmp_path, implicit=False, undefined=False)
    anew = [
        encoded_anew(series[0], tmp_path, implicit=implicit, undefined=undefined)
        for implicit, undefined in ((False, True), (True, False), (True, True))
    ]
    changed = encoded_anew(series[0], tmp_path, implicit=True, undefined=True, PatientID="another")
    assert [is_same_object(first, other) for other in (*anew, changed)] == [True, True, True, False]
    assert bring(store, first, "one") is Accepted.NEW
    assert [bring(store, file, "one") for file in anew] == [Accepted.REPEATED] * 3
    assert bring(store, anew[0], "two") is Accepted.NEW
    assert bring(store, anew[1], "web") is Accepted.NEW
    assert [bring(store, changed, source) for source in ("one", "two")] == [Accepted.APART] * 2


def compressed(
    file: Path, to: Path, syntax: UID, encode: Callable[[npt.NDArray[Any]], bytes], *, more: int = 0
) -> Path:
    """A file with its pixels encoded anew, and the first of them changed by so much."""
    dataset = dcmread(file)
    pixels = dataset.pixel_array.copy()
    pixels[0, 0] += more
    dataset.PixelData = encapsulate([encode(pixels.view(np.uint16))])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(to, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return to


@pytest.mark.filterwarnings("ignore:End of file reached")
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGLosslessSV1, lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16)),
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEG2000Lossless, lambda pixels: imagecodecs.jpeg2k_encode(pixels, reversible=True, codecformat="j2k")),
    ],
)
def test_pixels_that_an_archive_compressed_or_decompressed_are_the_same(
    node: Settings,
    engine: Engine,
    series: list[Path],
    tmp_path: Path,
    syntax: UID,
    encode: Callable[[npt.NDArray[Any]], bytes],
) -> None:
    same = compressed(series[0], tmp_path / "same.dcm", syntax, encode)
    changed = compressed(series[0], tmp_path / "changed.dcm", syntax, encode, more=1)
    store = InstanceStore(node, engine)
    assert bring(store, series[0], "one") is Accepted.NEW
    assert bring(store, same, "one") is Accepted.REPEATED
    assert bring(store, changed, "one") is Accepted.APART
    assert not is_same_object(same, changed)
    beginning = same.read_bytes()
    same.write_bytes(beginning[: len(beginning) - len(beginning) // 4])
    assert not is_same_object(series[0], same)


def test_what_cannot_be_read_is_not_the_same(series: list[Path], tmp_path: Path) -> None:
    torn = tmp_path / "torn.dcm"
    shutil.copyfile(series[0], torn)
    with torn.open("r+b") as file:
        file.truncate(400)
    assert not is_same_object(series[0], torn)
    assert not is_same_object(series[0], tmp_path / "none.dcm")
