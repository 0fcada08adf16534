"""Accepted files that are damaged or lost on the node's disk: no run takes them for whole, and sent again they heal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from pydicom import Dataset
from sqlalchemy import Engine, select, update

from carina.config import FolderSource, NodeSettings, Settings
from carina.database import ARRIVAL, database_now, open_database, upgrade_schema
from carina.jobs.execute import execute
from carina.jobs.intake import take_up
from carina.jobs.listing import Job, list_jobs
from carina.jobs.queue import Room, claim
from carina.receive.commitment import SOME_MISSING
from carina.receive.complete import RUN_REFUSED, complete_arrivals, release
from carina.receive.files import arriving_file, read_says
from carina.receive.recover import recover
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from reading_pipeline import READING
from receiving import commitment_report

ORIGIN = SentBy("scanner", "CT1@127.0.0.1")

SLICES = 40


class Node:
    """A node with a source, and the files of a series that is sent to it."""

    def __init__(self, folder: Path, engine: Engine, sent: list[Path]) -> None:
        (folder / "node").mkdir()
        (folder / "reading.yaml").write_text(READING)
        pipelines = (str(folder / "reading.yaml"),)
        source = FolderSource(path=str(folder), quiet_s=3600, pipelines=pipelines)
        node = NodeSettings(folder=str(folder / "node"), free_gb=0, memory_gb=8, cores=4)
        self.settings, self.engine, self.sent = Settings(node=node, sources={"scanner": source}), engine, sent
        self.store = InstanceStore(self.settings, engine)

    def send(self) -> list[Accepted]:
        became = []
        for file in self.sent:
            with arriving_file(file, read_says(file)) as arriving:
                became.append(self.store.accept(arriving, ORIGIN))
        return became

    def stored(self, arrival: int = 1) -> list[Path]:
        return sorted((self.store.folder / "incoming" / str(arrival)).glob("*.dcm"))

    def settle(self) -> list[tuple[str, str]]:
        with self.engine.begin() as connection:
            long_ago = database_now(connection) - timedelta(hours=2)
            connection.execute(update(ARRIVAL).values(last_at=long_ago))
        complete_arrivals(self.settings, self.engine)
        with self.engine.connect() as connection:
            found = connection.execute(select(ARRIVAL.c.state, ARRIVAL.c.reason).order_by(ARRIVAL.c.id))
            return [(row.state, row.reason) for row in found]

    def take_up(self) -> None:
        with self.engine.begin() as connection:
            take_up(connection, self.settings, database_now(connection))

    def run(self) -> Job:
        with self.engine.begin() as connection:
            room = Room(8000, 4)
            claimed = claim(connection, "w", room, room, database_now(connection))
        assert claimed is not None
        attempt = claimed[0]
        assert execute(self.settings, self.engine, attempt)
        with self.engine.connect() as connection:
            return next(job for job in list_jobs(connection).jobs if job.id == attempt.job_id)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("ct")
    write_ct_series(chest_phantom(shape=(SLICES, 192, 192), lesions=0).volume, folder)
    return sorted(folder.glob("*.dcm"))


@pytest.fixture
def node(tmp_path: Path, node_database: str, sent: list[Path]) -> Iterator[Node]:
    engine = open_database(node_database)
    upgrade_schema(engine)
    yield Node(tmp_path, engine, sent)
    engine.dispose()


def damage(file: Path) -> None:
    """Other bytes in the pixels; the size and the header stay."""
    with file.open("r+b") as stream:
        stream.seek(-5000, 2)
        stream.write(b"\xa5" * 4000)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def lose(file: Path) -> None:
    file.unlink()


HARMS = [damage, cut, lose]


def words(*files: Path) -> str:
    are = "is" if len(files) == 1 else "are"
    names = ", ".join(file.stem for file in files)
    return (
        f"{len(files)} of {SLICES} accepted instances {are} damaged or missing on the node's disk: {names}; "
        "send the series again."
    )


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_harmed_in_the_quiet_time_waits_in_quarantine_and_heals(
    node: Node, harm: Callable[[Path], None]
) -> None:
    node.send()
    files = node.stored()
    for file in (files[0], files[-1]):
        harm(file)
    recover(node.settings, node.engine)
    assert node.settle() == [("quarantined", f"{words(files[0], files[-1])} {RUN_REFUSED}")]
    became = node.send()
    assert (became.count(Accepted.NEW), became.count(Accepted.REPEATED)) == (2, SLICES - 2)
    assert [state for state, _ in node.settle()] == ["queued", "complete"]
    assert len(node.stored(2)) == SLICES
    node.take_up()
    assert node.run().shown_state == "healthy"


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_harmed_and_sent_again_in_the_quiet_time_is_whole(node: Node, harm: Callable[[Path], None]) -> None:
    node.send()
    harm(node.stored()[20])
    assert node.send().count(Accepted.NEW) == 1
    assert node.settle() == [("complete", "")]


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_harmed_before_its_job_runs_faults_it_and_heals(node: Node, harm: Callable[[Path], None]) -> None:
    node.send()
    assert node.settle() == [("complete", "")]
    node.take_up()
    harmed = node.stored()[20]
    harm(harmed)
    job = node.run()
    assert (job.shown_state, job.error) == ("faulted", words(harmed))
    assert node.send().count(Accepted.NEW) == 1
    assert [state for state, _ in node.settle()] == ["queued", "complete"]
    node.take_up()
    healed = node.run()
    assert (healed.shown_state, healed.arrival_id) == ("healthy", 2)


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_file_of_an_earlier_arrival_is_found_in_the_later_one(
    node: Node, harm: Callable[[Path], None]
) -> None:
    whole = node.sent
    node.sent = whole[:-1]
    node.send()
    assert "slices are missing" in node.settle()[0][1]
    harmed = node.stored()[20]
    harm(harmed)
    node.sent = whole[-1:]
    node.send()
    assert node.settle()[1] == ("quarantined", f"{words(harmed)} {RUN_REFUSED}")


@pytest.mark.parametrize(("kept", "ends"), [((*range(10), *range(14, SLICES)), "faulted"), (range(SLICES), "healthy")])
def test_the_reason_for_which_a_series_waits_says_whether_a_release_helps(
    node: Node, tmp_path: Path, kept: Sequence[int], ends: str
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(f"min_slices = {SLICES + 1}\n")
    source = msgspec.structs.replace(node.settings.sources["scanner"], series_rules=str(rules))
    node.settings = msgspec.structs.replace(node.settings, sources={"scanner": source})
    node.sent = [node.sent[number] for number in kept]
    node.send()
    ((state, reason),) = node.settle()
    assert (state, reason.endswith(RUN_REFUSED)) == ("quarantined", ends == "faulted")
    with node.engine.begin() as connection:
        assert release(connection, 1)
    node.take_up()
    job = node.run()
    assert (job.shown_state, job.error) == (ends, reason.removesuffix(f" {RUN_REFUSED}") if job.error else "")


def test_a_harmed_file_is_not_confirmed_to_who_asks_for_storage_commitment(node: Node) -> None:
    node.send()
    harmed = node.stored()[3]
    damage(harmed)
    asked, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", harmed.stem
    asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.3", [item]
    event, report = commitment_report(node.settings, node.engine, asked)
    assert (event, len(report.FailedSOPSequence)) == (SOME_MISSING, 1)
