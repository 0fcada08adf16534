"""The earlier chest CT of a patient, fetched for a new scan from a real Orthanc: how it comes, what it is run as."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from sqlalchemy import Engine, select, update

from carina.config import (
    DicomDestination,
    DicomSettings,
    DicomSource,
    DicomwebDestination,
    FolderDestination,
    NodeSettings,
    Priority,
    Settings,
)
from carina.database import ARRIVAL, JOB, PRIOR, PRIOR_SERIES, database_now, open_database, upgrade_schema
from carina.jobs.intake import take_up
from carina.jobs.queue import RANKS
from carina.receive import priors
from carina.receive.complete import complete_arrivals
from carina.receive.listener import DicomListener
from carina.receive.priors import PAUSES, PriorFetcher
from carina.receive.pull import Pulled, pull
from carina.receive.store import InstanceStore, SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from carina.testing.dicom import write_ct_series
from carina.testing.pacs import Pacs, orthanc, orthanc_program
from carina.testing.ports import free_port
from carina.volume import Grid, Volume

LISTENER = free_port()
PATIENT_ID = "KW-4711"
SLICES = 12
NOT_ASKED = "Earlier scans are not asked for:"


def scan(folder: Path, number: int, date: str, description: str = "Thorax 1.0", **header: str) -> list[Path]:
    """A scan of the patient, as small as the rules take one; another number is another series."""
    grid = Grid(shape=(SLICES, 64, 64), spacing_mm=(2.5, 1, 1), origin_mm=(0, 0, 0))
    scanned = Volume(hu=np.full(grid.shape, -800, np.int16), grid=grid, uid=f"scan {number}")
    files = list(write_ct_series(scanned, folder))
    for file in files:
        dataset = dcmread(file)
        dataset.PatientID, dataset.StudyDate, dataset.SeriesDescription = PATIENT_ID, date, description
        for keyword, value in header.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file)
    return files


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    if not orthanc_program():
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    with orthanc(modalities={"carina": ("CARINA", "127.0.0.1", LISTENER)}) as running:
        held = [(1, "20250101", {}), (2, "20260301", {}), (3, "20260501", {}), (4, "20260302", {"PatientID": "KW-47"})]
        for number, date, header in held:
            for file in scan(tmp_path_factory.mktemp(f"study{number}"), number, date, **header):
                request = urllib.request.Request(f"{running.http_url}/instances", file.read_bytes(), method="POST")
                urllib.request.urlopen(request, timeout=30).close()
        yield running


def settings_of(folder: Path, peer: DicomDestination | DicomwebDestination, **source: Any) -> Settings:
    return Settings(
        node=NodeSettings(folder=str(folder / "node"), database=f"sqlite:///{folder}/n.sqlite", free_gb=0),
        dicom=DicomSettings(port=LISTENER),
        sources={
            "scanner": DicomSource(ae_title="CARINA", quiet_s=0.001, destinations=("share",), earlier="pacs", **source)
        },
        destinations={"pacs": peer, "share": FolderDestination(path=str(folder / "share"))},
    )


@contextmanager
def node(settings: Settings) -> Iterator[InstanceStore]:
    """A node's store, and its listener."""
    Path(settings.node.folder).mkdir()
    engine = open_database(settings.node.database)
    upgrade_schema(engine)
    store = InstanceStore(settings, engine)
    listener = DicomListener(store)
    listener.start()
    try:
        yield store
    finally:
        listener.stop()
        engine.dispose()


def arrive(store: InstanceStore, files: list[Path]) -> None:
    for file in files:
        request = StowRequest(origin=SentBy("scanner", "CT@127.0.0.1"), content_type="application/dicom")
        assert store_over_the_web(store, request, [file.read_bytes()]).status == 200


def settle(store: InstanceStore) -> list[tuple[int, int, str]]:
    """Let what arrived become jobs; whether each job is of a prior, its priority and its destinations."""
    while "arriving" in states(store.engine):
        complete_arrivals(store.settings, store.engine)
    assert "quarantined" not in states(store.engine)
    with store.engine.begin() as connection:
        take_up(connection, store.settings, database_now(connection))
        wanted = select(JOB.c.is_prior, JOB.c.priority, JOB.c.destinations).order_by(JOB.c.id)
        return [tuple(row) for row in connection.execute(wanted)]


def states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(select(ARRIVAL.c.state)).scalars())


def wishes(engine: Engine) -> list[tuple[str, str, int]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(PRIOR.c.state, PRIOR.c.said, PRIOR.c.attempts))]


def peer_by(how: str, pacs: Pacs) -> DicomDestination | DicomwebDestination:
    if how == "web":
        return DicomwebDestination(url=pacs.dicomweb_url)
    return DicomDestination(host=pacs.host, port=pacs.dicom_port, ae_title=pacs.ae_title)


NEW = (0, RANKS[Priority.NORMAL], json.dumps(["share"]))
AS_PRIOR = (1, RANKS[Priority.LOW], "[]")


@pytest.mark.parametrize("how", ["get", "move", "web"])
def test_the_latest_earlier_chest_is_fetched_and_run_without_deliveries(pacs: Pacs, tmp_path: Path, how: str) -> None:
    with node(settings_of(tmp_path, peer_by(how, pacs), earlier_by="move" if how == "move" else "get")) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        assert settle(store) == [NEW]
        assert PriorFetcher(store, "another").round() == 0
        assert PriorFetcher(store, "pacs").round() == 1
        assert settle(store) == [NEW, AS_PRIOR]
        assert PriorFetcher(store, "pacs").round() == 0
        with store.engine.connect() as connection:
            rows = connection.execute(select(ARRIVAL.c.studied, ARRIVAL.c.whose_sha256).order_by(ARRIVAL.c.id)).all()
        assert [row.studied[:8] for row in rows] == ["20260401", "20260301"]
        assert len({row.whose_sha256 for row in rows}) == 1
        assert wishes(store.engine) == [("fetched", "Earlier scans at pacs: 2026-03-01.", 1)]


def test_a_series_that_was_run_before_is_not_fetched_again(pacs: Pacs, tmp_path: Path) -> None:
    peer = DicomwebDestination(url=pacs.dicomweb_url)
    with node(settings_of(tmp_path, peer, earlier_studies=2)) as store:
        arrive(store, scan(tmp_path / "before", 2, "20260301"))
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        assert settle(store) == [NEW, NEW]
        PriorFetcher(store, "pacs").round()
        assert settle(store) == [NEW, NEW, AS_PRIOR]
        said = [said for _, said, _ in wishes(store.engine)]
        assert sorted(said) == ["Earlier scans at pacs: 2025-01-01.", "Earlier scans at pacs: 2026-03-01, 2025-01-01."]


@pytest.mark.parametrize("state", ["arriving", "complete", "quarantined", "queued"])
def test_a_series_that_the_scanner_itself_sends_is_delivered(pacs: Pacs, tmp_path: Path, state: str) -> None:
    """In whatever state its arrival is when a later scan of its patient asks for it; nothing is fetched then."""
    with node(settings_of(tmp_path, DicomwebDestination(url=pacs.dicomweb_url))) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        assert settle(store) == [NEW]
        before = scan(tmp_path / "before", 2, "20260301")
        arrive(store, before[:-1])
        set_state(store.engine, state)
        for _ in range(2):  # and when it is asked once more
            assert PriorFetcher(store, "pacs").round() == 1
            assert len(states(store.engine)) == 2
            with store.engine.begin() as connection:
                connection.execute(update(PRIOR).values(state="asked", not_before=None))
        if state != "arriving":
            set_state(store.engine, "complete")
        arrive(store, before[-1:])
        assert settle(store)[:2] == [NEW, NEW]
        assert AS_PRIOR not in settle(store)


@pytest.mark.parametrize("how", ["get", "move", "web"])
def test_a_series_that_was_fetched_and_is_sent_later_is_run_and_delivered(pacs: Pacs, tmp_path: Path, how: str) -> None:
    with node(settings_of(tmp_path, peer_by(how, pacs), earlier_by="move" if how == "move" else "get")) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        assert settle(store) == [NEW]
        assert PriorFetcher(store, "pacs").round() == 1
        assert settle(store) == [NEW, AS_PRIOR]
        arrive(store, scan(tmp_path / "before", 2, "20260301"))
        assert settle(store) == [NEW, AS_PRIOR, NEW]
        with store.engine.connect() as connection:
            rows = connection.execute(select(JOB.c.id, JOB.c.ended, JOB.c.supersedes).order_by(JOB.c.id)).all()
        assert [(row.ended, row.supersedes) for row in rows] == [("", None), ("canceled", None), ("", rows[1].id)]


@pytest.mark.parametrize("share", [1, 6, SLICES])
def test_a_scanner_that_sends_while_it_is_fetched_is_not_taken_for_the_pacs(
    pacs: Pacs, tmp_path: Path, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decision to fetch and the first instance, some or all of what it sends is there."""
    before = scan(tmp_path / "before", 2, "20260301")

    def pulled_late(*given: Any, **more: Any) -> Iterator[Pulled]:
        arrive(store, before[:share])
        yield from pull(*given, **more)

    monkeypatch.setattr(priors, "pull", pulled_late)
    with node(settings_of(tmp_path, DicomwebDestination(url=pacs.dicomweb_url))) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        assert settle(store) == [NEW]
        assert PriorFetcher(store, "pacs").round() == 1
        arrive(store, before[share:])
        made = settle(store)
        assert made[0] == made[-1] == NEW
        assert len(made) == 2
        with store.engine.connect() as connection:
            folder = connection.execute(select(JOB.c.source).order_by(JOB.c.id.desc())).scalars().first()
        assert len(list((store.folder / str(folder)).glob("*.dcm"))) == SLICES


def set_state(engine: Engine, state: str) -> None:
    """Of the latest arrival."""
    with engine.begin() as connection:
        last = select(ARRIVAL.c.id).order_by(ARRIVAL.c.id.desc()).limit(1).scalar_subquery()
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.id == last).values(state=state))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"PatientID": "KW-1"}, "pacs has no earlier chest CT of the patient."),
        ({"PatientID": "ANONYMOUS"}, f"{NOT_ASKED} its Patient ID is no valid one, or one that stands for many"),
        ({"PatientIdentityRemoved": "YES"}, f"{NOT_ASKED} it says that the patient's identity was removed"),
        ({"PatientID": ""}, f"{NOT_ASKED} it has no Patient ID."),
        ({"StudyDate": ""}, f"{NOT_ASKED} it has no study date."),
        ({"StudyDate": "20240101"}, "pacs has no earlier chest CT of the patient."),
        ({"PatientID": "*", "StudyDate": ""}, f"{NOT_ASKED} its Patient ID is no valid one"),
    ],
)
def test_what_has_no_earlier_scan_says_so(pacs: Pacs, tmp_path: Path, header: dict[str, str], words: str) -> None:
    with node(settings_of(tmp_path, DicomwebDestination(url=pacs.dicomweb_url))) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401", **header))
        settle(store)
        PriorFetcher(store, "pacs").round()
        ((state, said, attempts),) = wishes(store.engine)
        assert (state, said.startswith(words), attempts) == ("fetched", True, 1), said
        assert settle(store) == [NEW]


def test_a_pacs_that_is_away_is_asked_a_few_times_and_the_job_waits_for_none_of_it(tmp_path: Path) -> None:
    away = DicomDestination(host="127.0.0.1", port=free_port(), ae_title="AWAY", timeout_s=1)
    with node(settings_of(tmp_path, away)) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        settle(store)
        with store.engine.connect() as connection:
            state, not_before = connection.execute(select(JOB.c.state, JOB.c.not_before)).one()
        assert (state, not_before) == ("pending", None)
        fetcher = PriorFetcher(store, "pacs")
        for number in range(1, len(PAUSES) + 2):
            assert fetcher.round() == 1
            assert fetcher.round() == 0  # not before its time
            ((state, said, attempts),) = wishes(store.engine)
            assert attempts == number
            assert "nothing answers there" in said
            is_last = number > len(PAUSES)
            assert (state, "It will be asked again." in said) == ("fetched" if is_last else "asked", not is_last)
            with store.engine.begin() as connection:
                connection.execute(update(PRIOR).values(not_before=None))
        assert fetcher.round() == 0
        with store.engine.connect() as connection:
            assert not connection.execute(select(PRIOR_SERIES)).all()


def test_a_pacs_that_takes_the_line_and_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for name, peer in (
            ("dicom", DicomDestination(host="127.0.0.1", port=port, ae_title="SILENT", timeout_s=0.5)),
            ("web", DicomwebDestination(url=f"http://127.0.0.1:{port}/web", timeout_s=0.5)),
        ):
            (tmp_path / name).mkdir()
            with node(settings_of(tmp_path / name, peer)) as store:
                arrive(store, scan(tmp_path / name / "new", 9, "20260401"))
                settle(store)
                assert PriorFetcher(store, "pacs").round() == 1
                ((state, said, _),) = wishes(store.engine)
                assert (state, "can't be reached" in said) == ("asked", True), said


def test_a_peer_that_is_not_in_the_settings_any_more_is_not_asked_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, DicomwebDestination(url="http://127.0.0.1:9"))
    with node(settings) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        settle(store)
        store.settings = Settings(node=settings.node, sources=settings.sources)
        PriorFetcher(store, "pacs").round()
        ((state, said, _),) = wishes(store.engine)
        assert (state, "destinations.pacs: no DICOM node is called so" in said) == ("fetched", True)


def test_a_fetch_that_is_killed_each_time_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(PriorFetcher, "_fetch", killed)
    with node(settings_of(tmp_path, DicomwebDestination(url="http://127.0.0.1:9"))) as store:
        arrive(store, scan(tmp_path / "new", 9, "20260401"))
        settle(store)
        fetcher = PriorFetcher(store, "pacs")
        for _ in range(len(PAUSES) + 1):
            with pytest.raises(KeyboardInterrupt):
                fetcher.round()
            with store.engine.begin() as connection:
                connection.execute(update(PRIOR).values(not_before=None))
        assert (fetcher.round(), fetcher.round()) == (1, 0)
        assert wishes(store.engine) == [("fetched", "Earlier scans could not be fetched from pacs.", len(PAUSES) + 1)]


def test_a_peer_that_sets_off_a_fault_of_ours_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> str:
        raise ZeroDivisionError(PATIENT_ID)

    monkeypatch.setattr("carina.receive.priors.find_at", broken)
    with node(settings_of(tmp_path, DicomwebDestination(url="http://127.0.0.1:9"))) as store:
        for number in (8, 9):
            arrive(store, scan(tmp_path / f"new{number}", number, "20260401"))
        settle(store)
        assert PriorFetcher(store, "pacs").round() == 2
        assert [(state, attempts) for state, _, attempts in wishes(store.engine)] == [("asked", 1), ("asked", 1)]
        assert "a fault of Carina's (ZeroDivisionError), see the log." in wishes(store.engine)[0][1]
        assert "find_at" in caplog.text
        assert "KW-4711" not in caplog.text + str(wishes(store.engine))


def test_nothing_of_another_series_than_was_asked_for_is_kept(tmp_path: Path) -> None:
    with node(settings_of(tmp_path, DicomwebDestination(url="http://127.0.0.1:9"))) as store:
        file = scan(tmp_path / "new", 9, "20260401")[0]
        origin = SentBy("scanner", "CT@127.0.0.1", series_uid="1.2.3")
        request = StowRequest(origin=origin, content_type="application/dicom")
        assert store_over_the_web(store, request, [file.read_bytes()]).status == 409
        assert states(store.engine) == []
