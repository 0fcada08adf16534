"""What comes under known UIDs and is not the same: one arrival for all of it, run by itself, in place of nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from sqlalchemy import Engine, Row, select, update

from carina.config import DicomSettings, DicomSource, NodeSettings, Settings
from carina.database import ARRIVAL, JOB, database_now, open_database, upgrade_schema
from carina.jobs.intake import take_up
from carina.jobs.queue import Attempt, JobEnd, Room, claim, heartbeat, stop
from carina.jobs.reading import await_reader
from carina.receive.complete import complete_arrivals, release
from carina.receive.files import arriving_file, read_says
from carina.receive.recover import recover
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from received_files import instance_rows

SLICES = 12
RULES = "max_slice_spacing_mm = 50.0\nmax_pixel_spacing_mm = 20.0\n"
WHOLE = Room(1e9, 1e9)


@dataclass(frozen=True)
class Node:
    """A store and its settings."""

    store: InstanceStore
    settings: Settings

    @property
    def engine(self) -> Engine:
        return self.store.engine


@pytest.fixture
def node(tmp_path: Path, node_database: str) -> Iterator[Node]:
    (tmp_path / "node").mkdir()
    (tmp_path / "rules.toml").write_text(RULES)
    settings = Settings(
        node=NodeSettings(folder=str(tmp_path / "node"), free_gb=0),
        dicom=DicomSettings(instance_mb=1),
        series_rules=str(tmp_path / "rules.toml"),
        sources={name: DicomSource(ae_title=name.upper(), quiet_s=60) for name in ("scanner", "pacs")},
    )
    engine = open_database(node_database)
    upgrade_schema(engine)
    yield Node(InstanceStore(settings, engine), settings)
    engine.dispose()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    small = chest_phantom(shape=(SLICES, 64, 64), lesions=0, seed=1).volume
    return write_ct_series(small, tmp_path_factory.mktemp("series"))


def changed(files: Sequence[Path], folder: Path, *, is_renamed: bool = False, **changes: object) -> list[Path]:
    """The same slices with other values in their headers, and under SOP Instance UIDs of their own."""
    folder.mkdir()
    for file in files:
        dataset = dcmread(file)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        if is_renamed:
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / file.name)
    return [folder / file.name for file in files]


def bring(node: Node, files: Sequence[Path], source: str = "scanner") -> set[Accepted]:
    became = set()
    for file in files:
        with arriving_file(file, read_says(file)) as arriving:
            became.add(node.store.accept(arriving, SentBy(source, "CT1@127.0.0.1")))
    return became


def settle(node: Node) -> None:
    """Let the quiet time pass, and have jobs made of what is complete."""
    with node.engine.begin() as connection:
        long_ago = database_now(connection) - timedelta(hours=1)
        connection.execute(update(ARRIVAL).where(ARRIVAL.c.state == "arriving").values(last_at=long_ago))
    complete_arrivals(node.settings, node.engine)
    queue(node)


def queue(node: Node) -> None:
    with node.engine.begin() as connection:
        take_up(connection, node.settings, database_now(connection))


def let_go(node: Node, arrival_id: int, source: str = "") -> None:
    with node.engine.begin() as connection:
        assert release(connection, arrival_id, source)
    queue(node)


def arrivals(node: Node) -> Sequence[Row[Any]]:
    with node.engine.connect() as connection:
        return connection.execute(select(ARRIVAL).order_by(ARRIVAL.c.id)).all()


def jobs(node: Node) -> Sequence[Row[Any]]:
    with node.engine.connect() as connection:
        return connection.execute(select(JOB).order_by(JOB.c.id)).all()


def read_by(node: Node, job: Row[Any]) -> dict[str, str]:
    """What a job's run reads: Patient IDs by file name."""
    return {file.name: str(dcmread(file).PatientID) for file in (node.store.folder / job.source).glob("*.dcm")}


def described(files: Sequence[Path]) -> set[str]:
    """The Series Descriptions in files."""
    return {str(dcmread(file).SeriesDescription) for file in files}


def run(node: Node, *, is_healthy: bool = False) -> Attempt:
    """Let the first job that waits be taken by a worker, and end well."""
    with node.engine.begin() as connection:
        now = database_now(connection)
        taken = claim(connection, "host:1", WHOLE, WHOLE, now)
        assert taken is not None
        if is_healthy:
            assert stop(connection, taken[0], JobEnd.HEALTHY, now)
            await_reader(connection, taken[0].job_id)
    return taken[0]


def end(node: Node, attempt: Attempt) -> None:
    with node.engine.begin() as connection:
        assert stop(connection, attempt, JobEnd.HEALTHY, database_now(connection))
        await_reader(connection, attempt.job_id)


def test_a_corrected_series_is_one_arrival_and_one_warning(
    node: Node, files: Sequence[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bring(node, files)
    settle(node)
    corrected = changed(files, tmp_path / "corrected", PatientID="MERGED")
    with caplog.at_level(logging.WARNING):
        assert bring(node, corrected) == {Accepted.APART}
        assert [row.state for row in arrivals(node)] == ["queued", "arriving"]
        settle(node)
    assert bring(node, corrected) == {Accepted.REPEATED}
    _, apart = arrivals(node)
    assert (apart.state, apart.is_apart) == ("apart", 1)
    assert apart.reason.startswith(f"{SLICES} of {SLICES} instances of the series came with another content")
    assert caplog.messages == [f"arrival {apart.id}: apart: {apart.reason}"]
    assert len(jobs(node)) == 1, "it waits to be released"


def test_a_corrected_series_is_run_by_itself_once_released(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    bring(node, files)
    settle(node)
    bring(node, changed(files, tmp_path / "corrected", PatientID="MERGED"))
    settle(node)
    let_go(node, 2)
    first, alone = jobs(node)
    assert (first.state, first.cancel, alone.state, alone.supersedes) == ("pending", 0, "pending", None)
    assert set(read_by(node, first).values()).isdisjoint({"MERGED"})
    assert set(read_by(node, alone).values()) == {"MERGED"} and len(read_by(node, alone)) == SLICES
    assert [row.state for row in arrivals(node)] == ["queued", "queued"]


@pytest.mark.parametrize("source", ["", "pacs"])
def test_a_release_stops_no_job_that_runs(node: Node, files: Sequence[Path], tmp_path: Path, source: str) -> None:
    """Nor one of the source that it is released as; the results of all of them are to be read."""
    bring(node, files)
    bring(node, files, "pacs")
    settle(node)
    running = [run(node), run(node)]
    bring(node, changed(files[:1], tmp_path / "one", PatientID="MERGED"))
    settle(node)
    apart = arrivals(node)[-1]
    assert apart.reason.startswith(f"1 of {SLICES} instances of the series came with another content")
    let_go(node, apart.id, source)
    with node.engine.begin() as connection:
        assert heartbeat(connection, running, database_now(connection)) == dict.fromkeys(running, False)
    for attempt in (*running, run(node)):
        end(node, attempt)
    assert [(job.ended, job.reading, job.supersedes) for job in jobs(node)] == [("healthy", "unread", None)] * 3
    assert len(read_by(node, jobs(node)[-1])) == 1


def test_a_series_that_grows_is_run_without_what_was_released(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    bring(node, files[:-2])
    settle(node)
    run(node, is_healthy=True)
    bring(node, changed(files[:3], tmp_path / "three", PatientID="MERGED"))
    settle(node)
    let_go(node, 2)
    bring(node, files[-2:])
    settle(node)
    first, alone, grown = jobs(node)
    assert (alone.state, alone.cancel, grown.supersedes) == ("pending", 0, first.id)
    assert len(read_by(node, grown)) == SLICES and "MERGED" not in read_by(node, grown).values()
    run(node, is_healthy=True)
    run(node, is_healthy=True)
    assert [job.reading for job in jobs(node)] == ["", "unread", "unread"]


def test_no_instance_takes_the_place_of_another_that_is_apart(
    node: Node, files: Sequence[Path], tmp_path: Path
) -> None:
    """Corrected twice within the quiet time, and once more after it, and of another patient in between."""
    bring(node, files)
    became = [bring(node, changed(files, tmp_path / name, SeriesDescription=name)) for name in ("once", "twice")]
    assert became == [{Accepted.APART}] * 2
    assert bring(node, changed(files[:1], tmp_path / "else", PatientID="ELSE")) == {Accepted.APART}
    settle(node)
    assert bring(node, changed(files, tmp_path / "late", SeriesDescription="late")) == {Accepted.APART}
    settle(node)
    assert [row.state for row in arrivals(node)] == ["queued", "apart", "apart", "apart", "apart"]
    held = [sorted(Path(node.store.folder, "incoming", str(row.id)).glob("*.dcm")) for row in arrivals(node)]
    assert [len(found) for found in held] == [SLICES, SLICES, SLICES, 1, SLICES]
    assert [described(held[number]) for number in (1, 2, 4)] == [{"once"}, {"twice"}, {"late"}]
    assert instance_rows(node.engine) == sum(map(len, held))


def test_after_a_crash_the_same_arrival_takes_the_rest(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    corrected = changed(files, tmp_path / "corrected", PatientID="MERGED")
    bring(node, files)
    bring(node, corrected[:5])
    torn = Path(node.store.folder, "incoming", "2", "torn.dcm")
    torn.write_bytes(b"x")
    assert recover(node.settings, node.engine) == 1 and not torn.exists()
    after = Node(InstanceStore(node.settings, node.engine), node.settings)
    assert bring(after, corrected) == {Accepted.APART, Accepted.REPEATED}
    settle(after)
    assert [row.state for row in arrivals(node)] == ["queued", "apart"]
    let_go(after, 2)
    assert [len(read_by(node, job)) for job in jobs(node)] == [SLICES, SLICES]


@pytest.mark.parametrize("is_running", [True, False])
def test_another_patient_under_a_known_series_uid_leaves_the_first_one_alone(
    node: Node, files: Sequence[Path], tmp_path: Path, *, is_running: bool
) -> None:
    bring(node, files)
    settle(node)
    attempts = [run(node)] if is_running else []
    assert bring(node, changed(files, tmp_path / "other", is_renamed=True, PatientID="OTHER")) == {Accepted.NEW}
    settle(node)
    assert len(jobs(node)) == 1
    assert arrivals(node)[-1].state == "apart"
    assert arrivals(node)[-1].reason.startswith("instances of another patient came before under this Series Instance")
    let_go(node, 2)
    first, alone = jobs(node)
    assert (first.state, first.cancel, alone.supersedes) == ("running" if is_running else "pending", 0, None)
    assert (
        set(read_by(node, alone).values()) == {"OTHER"}
        and len(read_by(node, alone)) == len(read_by(node, first)) == SLICES
    )
    with node.engine.begin() as connection:
        assert not any(heartbeat(connection, attempts, database_now(connection)).values())


def test_two_patients_who_come_together_wait_in_quarantine(node: Node, files: Sequence[Path], tmp_path: Path) -> None:
    bring(node, [*files, *changed(files, tmp_path / "other", is_renamed=True, PatientID="OTHER")])
    settle(node)
    [mixed] = arrivals(node)
    assert mixed.state == "quarantined" and mixed.reason.startswith("the series holds instances of several patients")
    assert not jobs(node)


def test_a_job_whose_instances_were_removed_is_superseded_by_none(node: Node, files: Sequence[Path]) -> None:
    bring(node, files[:-2])
    settle(node)
    run(node, is_healthy=True)
    for file in Path(node.store.folder, "incoming", "1").iterdir():
        file.unlink()
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(state="removed"))
    bring(node, files[-2:])
    settle(node)
    let_go(node, 2)
    first, late = jobs(node)
    assert (first.reading, late.supersedes) == ("unread", None)
