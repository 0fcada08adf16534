"""Whatever a node does by itself with its folder's files: nothing of it counts while the folder is away, or goes.

Each is seen to change something while the folder is there. Then the folder is put away, an empty one in its place,
before it begins, or right after it has looked whether the folder is there: the database then stays as it was, and so do
the real folder and the empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, insert, select, update

from carina.api.result import Run
from carina.config import DicomDestination, FolderDestination, FolderSource, RetentionSettings, load_settings
from carina.corrections.decisions import DecisionRecord
from carina.corrections.journal import Journal
from carina.corrections.masks import MaskName, decisions_file
from carina.corrections.standing import Decision
from carina.database import DELIVERY, INSTANCE, JOB, PRIOR, REMOVAL, FolderAway, OwnFolder, PriorState
from carina.deliver.channels import channel_to
from carina.deliver.courier import Courier
from carina.deliver.notices import Notifier
from carina.deliver.pace import PACE
from carina.jobs.decided import catch_up_readings, note_reading
from carina.jobs.execute import execute
from carina.jobs.places import open_node
from carina.jobs.queue import Attempt
from carina.jobs.reading import leave_without_masks
from carina.jobs.wishes import Wishes
from carina.jobs.worker import Worker, World
from carina.keeping.backup import save_node
from carina.keeping.retention import Retention
from carina.receive.commitment import CommitmentRequest
from carina.receive.complete import complete_arrivals
from carina.receive.folder import WatchedFolder
from carina.receive.instance import NotAccepted
from carina.receive.moves import FETCHING
from carina.receive.owed_reports import add_owed, next_owed
from carina.receive.priors import PriorFetcher
from carina.receive.recover import recover
from carina.receive.reports import CommitmentReports
from carina.receive.unfinished import FetchResumer, FetchWish
from carina.receive.uploads import Upload, new_upload_id
from carina.sections import NoticeSettings
from carina.service.dicomweb.held import objects_of, study_uids
from carina.service.filling import fill_rows
from carina.service.node import RunningNode
from carina.service.uploads import sweep_uploads
from kept_nodes import TODAY, KeptArrival, KeptJob, fill
from received_files import small_ct
from served_nodes import settings_of
from test_node_folder_away import contents, put_away, take_in, tree

Act = Callable[[RunningNode], object]


def retention(node: RunningNode, free: int = 10**12, **keys: float) -> int:
    return Retention(node.engine, node.folder, RetentionSettings(**keys), free=lambda _: free).round()


def courier(node: RunningNode) -> bool:
    to = FolderDestination(path=str(node.folder.parent / "out"))
    channel = channel_to("PACS", to)
    made = Courier(
        engine=node.engine,
        folder=node.folder,
        name="PACS",
        destination=to,
        channel=channel,
        pace=PACE,
        clock=lambda: datetime.now(UTC),
    )
    return made.round()


def notices(node: RunningNode) -> bool:
    how = NoticeSettings(url="http://127.0.0.1:9/", secret="s" * 32, lesion_percent=1.0)
    return Notifier(engine=node.engine, folder=node.folder, settings=how, clock=lambda: TODAY, pace=PACE).round()


def begin_upload(node: RunningNode) -> None:
    node.uploads.begin(Upload(id=new_upload_id(), owner="", key="new", files=1, bytes=1, begun_at=node.now()))
    _note(node)


def run_job(node: RunningNode) -> bool:
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 3).values(attempt=1, state="running", worker="w"))
    try:
        return execute(node.settings, node.engine, Attempt(3, 1))
    finally:
        with node.engine.begin() as connection:
            still = (JOB.c.id == 3) & (JOB.c.state == "running")
            connection.execute(update(JOB).where(still).values(attempt=0, state="pending", worker=""))


def claim(node: RunningNode) -> None:
    def start(*_: object) -> Any:
        raise OSError(2, "No such file or directory")

    worker = Worker(node.settings, node.engine, name="w", world=World(start=start))
    worker._heard = float("inf")
    worker.turn()


def report(node: RunningNode) -> bool:
    """Look what is here of what a peer asked about, and tell it, which nobody takes."""
    peer = node.settings.destinations["PACS"]
    assert isinstance(peer, DicomDestination)
    with node.engine.begin() as connection:
        owed = next_owed(connection, "PACS", 0)
    assert owed is not None
    return CommitmentReports(node.settings, node.engine)._is_settled("PACS", peer, owed)


def watch(node: RunningNode) -> None:
    inbox, ticks = node.folder.parent / "inbox", count(0.0)
    inbox.mkdir()
    (inbox / "1.dcm").write_bytes(small_ct("1.2.3.7"))
    watched = WatchedFolder("scanner", FolderSource(path=str(inbox), quiet_s=0.5), node.store, clock_s=ticks.__next__)
    for _ in range(2):
        watched.look()


def resume_fetch(node: RunningNode) -> None:
    """A fetch of a peer that the settings don't have any more is given up."""
    FetchResumer(node.store).round()


ACTS: Mapping[str, Act] = {
    "retention by age": lambda node: retention(node, runs_days=1, incoming_days=1),
    "retention by use": lambda node: retention(node, runs_gb=1e-9, incoming_gb=1e-9),
    "retention by room": lambda node: retention(node, free=0, free_gb=1),
    "a removal that was begun": retention,
    "uploads that were given up": sweep_uploads,
    "a new upload": begin_upload,
    "the sender": courier,
    "notices": notices,
    "series that are complete": lambda node: complete_arrivals(node.settings, node.engine),
    "the rest of a crash": lambda node: recover(node.settings, node.engine),
    "rows of lists": fill_rows,
    "readings": lambda node: leave_without_masks(node.engine, node.folder),
    "comparisons": lambda node: Wishes(node.settings, node.engine).round(),
    "a job that is claimed": claim,
    "a job that runs": run_job,
    "earlier scans": lambda node: PriorFetcher(node.store, "PACS").round(),
    "a report on commitment": report,
    "a fetch that was broken off": resume_fetch,
    "a watched folder": watch,
    "decisions while it was not there": lambda node: catch_up_readings(node.engine, node.folder),
    "a decision": lambda node: note_reading(node.own, 1, Run(node.folder / "runs/1")),
    "an instance": lambda node: take_in(node.settings, node.engine, node.folder.parent),
}


def _note(node: RunningNode) -> None:
    """What only files tell, told in the database, too."""
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 1).values(error="noted"))


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    """A node whose database lies elsewhere, with something to do for everybody."""
    file = tmp_path / "carina.toml"
    file.write_text(
        f'[node]\nfolder = "{tmp_path / "node"}"\ndatabase = "sqlite:///{tmp_path}/elsewhere.sqlite"\nfree_gb = 0.0\n'
        '[sources.scanner]\nkind = "dicom"\nae_title = "CARINA"\nquiet_s = 1.0\npipelines = ["default"]\n'
        '[destinations.PACS]\nkind = "dicom"\nhost = "127.0.0.1"\nport = 9\nae_title = "PACS"\ntimeout_s = 1.0\n'
    )
    settings = load_settings(file, {})
    engine = open_node(settings)
    fill(
        engine,
        tmp_path / "node",
        [
            KeptArrival(series="1", jobs=(KeptJob(),)),
            KeptArrival(series="2", jobs=(KeptJob(deliveries=("waiting",)),)),
            KeptArrival(series="3", jobs=(KeptJob(state="pending", ended=""),)),
            KeptArrival(series="4", state="arriving"),
        ],
    )
    _add_to_do(engine, tmp_path / "node")
    made = RunningNode(settings=settings, engine=engine, now=lambda: datetime.now(UTC) + timedelta(days=400))
    old = Upload(id="0" * 32, owner="", key="k", files=1, bytes=1, begun_at=TODAY)
    made.uploads.begin(old)
    made.own.check()
    return made


def _add_to_do(engine: Engine, folder: Path) -> None:
    (folder / "runs/1/findings.json").write_text('{"regions": [{"region": "lungs", "ratio_percent": 30.0}]}')
    with engine.begin() as connection:
        connection.execute(update(INSTANCE).values(flushed=1))
        torn = select(INSTANCE.c.id).where(INSTANCE.c.arrival_id == 4).limit(1).scalar_subquery()
        connection.execute(update(INSTANCE).where(INSTANCE.c.id == torn).values(flushed=0, sha256="0" * 64))
        connection.execute(update(DELIVERY).values(destination="PACS", not_before=None))
        connection.execute(update(JOB).where(JOB.c.id == 1).values(reading="unread", described=None, stopped_at=TODAY))
        connection.execute(update(JOB).where(JOB.c.id == 3).values(attempt=0, pipeline="none.yaml"))
        connection.execute(insert(REMOVAL).values(kind="incoming", subject_id=9, why="old", begun_at=TODAY))
        wish = {"job_id": 1, "peer": "PACS", "state": PriorState.FETCHED, "said": "", "attempts": 1}
        connection.execute(insert(PRIOR).values(**wish, created_at=TODAY, not_before=TODAY))
        connection.execute(insert(PRIOR).values(job_id=2, peer="PACS", state=PriorState.ASKED, created_at=TODAY))
        asked = CommitmentRequest(transaction_uid="1.2", references=(("1", "9.1.0"),), project="default")
        add_owed(connection, "PACS", asked)
    gone = FetchWish(peer="GONE", source="scanner", study_uid="1", series_uid="1", instances=None, is_moved=False)
    (folder / FETCHING).mkdir()
    (folder / FETCHING / "1.json").write_bytes(msgspec.json.encode([gone]) + b"\n")
    record = DecisionRecord(
        layer=MaskName.LUNG, decision=Decision.ACCEPTED, reader="R", at=TODAY, correction=0, sha256="1", marked_ml=1.0
    )
    decisions_file(folder / "runs/1").parent.mkdir()
    Journal(decisions_file(folder / "runs/1"), DecisionRecord).append(record)
    (folder / "incoming/9").mkdir()
    (folder / "incoming/9/1.dcm").write_bytes(b"half removed")


@pytest.mark.parametrize("what", ACTS)
def test_while_it_is_there_something_changes(node: RunningNode, what: str) -> None:
    before = contents(node.engine), tree(node.folder)
    with suppress(NotAccepted):
        ACTS[what](node)
    assert (contents(node.engine), tree(node.folder)) != before


@pytest.mark.parametrize("goes", ["before", "right after it was looked for"])
@pytest.mark.parametrize("what", ACTS)
def test_nothing_counts_once_it_has_gone(
    node: RunningNode, what: str, goes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(node.engine)
    real = put_away(node.settings, "empty")
    held = tree(real)
    if goes != "before":
        _let_one_look_pass(monkeypatch)
    with suppress(FolderAway, NotAccepted, OSError):
        ACTS[what](node)
    monkeypatch.undo()
    assert _but_heard(contents(node.engine)) == _but_heard(before)
    assert tree(real) == held
    assert [name for name in tree(node.folder) if not name.endswith(".lock")] == []


def _but_heard(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What a table says, but that a job was claimed and given back, which is no harm."""
    return {
        name: [{**row._mapping, "attempt": 0, "not_before": None, "started_at": None} for row in found]
        for name, found in rows.items()
    }


def _let_one_look_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the folder went right after the first look that finds it away."""
    looks, is_there = list[bool](), OwnFolder.is_there

    def look(own: OwnFolder) -> bool:
        looks.append(is_there(own))
        return looks[-1] or len(looks) == 1

    monkeypatch.setattr(OwnFolder, "is_there", look)


@pytest.mark.parametrize("goes", ["before", "while it is read"])
@pytest.mark.parametrize("read", ["a search", "what came", "what a job by path made"])
def test_a_dicomweb_read_of_a_folder_that_is_away_is_not_answered_with_nothing(
    node: RunningNode, read: str, goes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node.engine.begin() as connection:
        connection.execute(update(JOB).where(JOB.c.id == 1).values(arrival_id=None))
    reads: Mapping[str, Callable[[], object]] = {
        "a search": lambda: [objects_of(node, uid) for uid in study_uids(node)],
        "what came": lambda: objects_of(node, "1.2"),
        "what a job by path made": lambda: objects_of(node, "2.25.1"),
    }
    reads[read]()
    put_away(node.settings, "empty")
    if goes != "before" and read == "a search":
        _let_one_look_pass(monkeypatch)
    with pytest.raises(FolderAway, match="the node's folder is not there"):
        reads[read]()


def test_a_backup_of_a_folder_that_goes_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    engine = open_node(settings)
    fill(engine, tmp_path / "node", [KeptArrival(jobs=(KeptJob(),))])
    engine.dispose()

    def go(folder: Path) -> list[Path]:
        put_away(settings, "empty")
        return []

    monkeypatch.setattr("carina.keeping.backup.rest_of", go)
    with pytest.raises(FolderAway, match="the node's folder went while it was saved, and nothing is lost"):
        save_node(settings, tmp_path / "saved", TODAY)
    assert not (tmp_path / "saved").exists()
