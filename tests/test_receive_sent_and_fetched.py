"""A series that is fetched to compare with, and sent to us: in whatever order, what is sent is run and delivered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import CTImageStorage
from pynetdicom import AE
from sqlalchemy import Connection, Insert, insert, select

from carina.config import DicomDestination, DicomSettings, DicomSource, FolderDestination, NodeSettings, Settings
from carina.database import ARRIVAL, INSTANCE, JOB, PRIOR, PRIOR_SERIES, database_now, open_database, upgrade_schema
from carina.jobs.intake import take_up
from carina.receive.complete import complete_arrivals
from carina.receive.files import arriving_file, read_says
from carina.receive.listener import DicomListener
from carina.receive.moves import PRIOR_MESSAGE, AskedBy, Moves
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.testing.ports import free_port

SLICES, PIECES = 12, 3
RULES = "max_slice_spacing_mm = 50.0\nmax_pixel_spacing_mm = 20.0\n"
NUMBERS = count(1)
SENT_WHOLE = [("sent", piece) for piece in range(PIECES)]


@dataclass(frozen=True)
class Series:
    """A series as the scanner has it, and as an archive does that writes something of its own into it."""

    uid: str
    as_sent: tuple[Path, ...]
    as_archived: tuple[Path, ...]

    def piece(self, number: int, *, is_archived: bool) -> Sequence[Path]:
        """Some of its slices."""
        return (self.as_archived if is_archived else self.as_sent)[number::PIECES]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("series")
    small = chest_phantom(shape=(SLICES, 64, 64), lesions=0, seed=1).volume
    sent, archived = (list(write_ct_series(small, folder / name)) for name in ("sent", "archived"))
    for file in archived:
        dataset = dcmread(file)
        dataset.InstitutionName = "Archive"
        dataset.save_as(file)
    return Series(str(dcmread(sent[0]).SeriesInstanceUID), tuple(sent), tuple(archived))


def node_at(folder: Path) -> InstanceStore:
    folder.mkdir()
    (folder / "rules.toml").write_text(RULES)
    source = DicomSource(ae_title="CARINA", quiet_s=0.001, destinations=("share",), earlier="pacs")
    settings = Settings(
        node=NodeSettings(folder=str(folder), database=f"sqlite:///{folder}/n.sqlite", free_gb=0),
        dicom=DicomSettings(port=free_port()),
        series_rules=str(folder / "rules.toml"),
        sources={"scanner": source},
        destinations={
            "pacs": DicomDestination(host="127.0.0.1", port=104, ae_title="PACS", calling_ae_title="NODE"),
            "share": FolderDestination(path=str(folder / "share")),
        },
    )
    engine = open_database(settings.node.database)
    upgrade_schema(engine)
    return InstanceStore(settings, engine)


def _added(connection: Connection, row: Insert) -> int:
    return int((connection.execute(row).inserted_primary_key or (0,))[0])


def want(store: InstanceStore, series_uid: str) -> None:
    """Write down that a series is fetched for some scan's job."""
    with store.engine.begin() as connection:
        now = database_now(connection)
        of_scan = {"series_uid": "2.25.1", "study_uid": "2.25.2", "source": "scanner", "sender": "", "state": "queued"}
        arrival = _added(connection, insert(ARRIVAL).values(**of_scan, first_at=now, last_at=now))
        job = {"arrival_id": arrival, "source": "", "pipeline": "default", "folder": "", "state": "stopped"}
        numbers = {"priority": 2, "memory_mb": 1, "cores": 1, "created_at": now}
        made = _added(connection, insert(JOB).values(**job, **numbers))
        wish = {"job_id": made, "peer": "pacs", "state": "asked", "created_at": now}
        prior = _added(connection, insert(PRIOR).values(**wish))
        connection.execute(insert(PRIOR_SERIES).values(prior_id=prior, series_uid=series_uid))


def bring(store: InstanceStore, files: Sequence[Path], *, is_prior: bool) -> list[Accepted]:
    origin = SentBy("scanner", "CT@127.0.0.1", is_prior=is_prior)
    became = []
    for file in files:
        with arriving_file(file, read_says(file)) as arriving:
            became.append(store.accept(arriving, origin))
    return became


def settle(store: InstanceStore) -> None:
    arriving = select(ARRIVAL.c.id).where(ARRIVAL.c.state == "arriving")
    while True:
        complete_arrivals(store.settings, store.engine)
        with store.engine.connect() as connection:
            if connection.execute(arriving).first() is None:
                return


def queue(store: InstanceStore) -> None:
    with store.engine.begin() as connection:
        take_up(connection, store.settings, database_now(connection))


def names(folder: str) -> set[str]:
    return {file.name for file in Path(folder).glob("*.dcm")}


def jobs(store: InstanceStore, series_uid: str) -> list[tuple[int, list[str], set[str]]]:
    """Jobs on a series that weren't canceled: whether it is of a prior, its destinations and the files it reads."""
    wanted = select(JOB).where(JOB.c.series_uid == series_uid, JOB.c.ended != "canceled").order_by(JOB.c.id)
    with store.engine.connect() as connection:
        rows = connection.execute(wanted).all()
    return [(row.is_prior, json.loads(row.destinations), names(str(store.folder / row.source))) for row in rows]


def in_quarantine(store: InstanceStore, series_uid: str) -> set[str]:
    waiting = select(ARRIVAL.c.id).where(ARRIVAL.c.series_uid == series_uid, ARRIVAL.c.state == "quarantined")
    with store.engine.connect() as connection:
        ids = connection.execute(waiting).scalars().all()
    return {name for one in ids for name in names(str(store.folder / "incoming" / str(one)))}


def test_what_waits_in_quarantine_is_not_taken_for_what_is_run(series: Series, tmp_path: Path) -> None:
    wrong = []
    for file in series.as_sent:
        dataset = dcmread(file)
        dataset.PixelSpacing = [30, 30]  # which the archive has corrected
        wrong.append(tmp_path / file.name)
        dataset.save_as(wrong[-1])
    store = node_at(tmp_path / "node")
    bring(store, wrong, is_prior=False)
    settle(store)
    assert len(in_quarantine(store, series.uid)) == SLICES
    want(store, series.uid)
    bring(store, series.as_archived, is_prior=True)
    settle(store)
    queue(store)
    [(_, _, read)] = jobs(store, series.uid)
    assert len(read) == SLICES and not in_quarantine(store, series.uid)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["sent", "fetched"]), st.integers(0, PIECES - 1)),
        st.sampled_from([("settle", 0), ("queue", 0)]),
    ),
    max_size=12,
)


@drawn(max_examples=50, deadline=None)
@given(STEPS, st.booleans())
@example([("fetched", 0), ("fetched", 1), ("fetched", 2), ("settle", 0), ("queue", 0), *SENT_WHOLE], True)
@example([("fetched", 0), *SENT_WHOLE, ("settle", 0), ("queue", 0)], False)
@example([("sent", 0), ("settle", 0), ("fetched", 1), ("fetched", 2)], False)
def test_what_is_sent_is_run_and_delivered_whatever_is_fetched_when(
    series: Series,
    tmp_path: Path,
    steps: list[tuple[str, int]],
    is_changed: bool,  # noqa: FBT001
) -> None:
    store = node_at(tmp_path / str(next(NUMBERS)))
    want(store, series.uid)
    brought: dict[str, set[str]] = {"sent": set(), "fetched": set()}
    for what, piece in steps:
        if what in brought:
            is_prior = what == "fetched"
            files = series.piece(piece, is_archived=is_prior and is_changed)
            uids = {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files}
            is_there = uids <= brought[what] or (is_prior and not is_changed and uids <= brought["sent"])
            is_new = Accepted.REPEATED if is_there else Accepted.NEW
            assert bring(store, files, is_prior=is_prior) == [is_new] * len(files)
            brought[what] |= uids
        else:
            {"settle": settle, "queue": queue}[what](store)
    settle(store)
    queue(store)
    check(store, series.uid, files_of(brought["sent"]), files_of(brought["fetched"]))
    store.engine.dispose()


def files_of(uids: set[str]) -> set[str]:
    return {f"{uid}.dcm" for uid in uids}


def check(store: InstanceStore, series_uid: str, sent: set[str], fetched: set[str]) -> None:
    """All that was sent is in the last job, which delivers; where it is too little for one, it waits and says so."""
    made, waiting = jobs(store, series_uid), in_quarantine(store, series_uid)
    if len(sent | fetched) < SLICES:
        assert not made
        assert waiting >= sent
    elif sent:
        assert made[-1] == (0, ["share"], sent | fetched)
        assert not waiting
    else:
        assert made == [(1, [], fetched)]


ASKED = {
    "our request for an earlier scan": (AskedBy(sender="PACS", originator="NODE", message_id=PRIOR_MESSAGE), True),
    "our request for another thing": (AskedBy(sender="PACS", originator="NODE", message_id=1), False),
    "no number": (AskedBy(sender="PACS", originator="NODE"), False),
    "somebody else's request": (AskedBy(sender="PACS", originator="VIEWER", message_id=PRIOR_MESSAGE), False),
    "not said, by whom is asked": (AskedBy(sender="PACS"), True),
    "not said, by another": (AskedBy(sender="CT1"), False),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_instance_says_whether_it_was_asked_for(name: str) -> None:
    asked, is_prior = ASKED[name]
    moves, ours = Moves(["PACS"]), frozenset({"NODE"})
    with moves.answered("scanner", "PACS", "1.2.3"):
        assert moves.brought("scanner", "1.2.3", asked, ours) is is_prior
        for source, series_uid in (("scanner", "1.2.4"), ("another", "1.2.3")):
            assert moves.brought(source, series_uid, asked, ours) is (is_prior and bool(asked.originator))
    assert moves.brought("scanner", "1.2.3", asked, ours) is (is_prior and bool(asked.originator))


def test_who_names_whoever_asked_is_not_taken_to_have_left_it_out() -> None:
    moves, ours = Moves(["PACS"]), frozenset({"NODE"})
    with moves.answered("scanner", "PACS", "1.2.3"):
        assert moves.brought("scanner", "1.2.3", AskedBy(sender="PACS"), ours)
        moves.brought("scanner", "1.2.3", AskedBy(sender="PACS", originator="NODE", message_id=PRIOR_MESSAGE), ours)
        assert not moves.brought("scanner", "1.2.3", AskedBy(sender="PACS"), ours)


def test_who_names_whoever_asked_is_known_after_a_restart_if_it_is_one_that_we_ask(tmp_path: Path) -> None:
    file, ours, peers = tmp_path / "fetching" / "titles.txt", frozenset({"NODE"}), ("PACS", "SILENT")
    for sender in ("PACS", "PACS", "STRANGER", "two\nlines"):
        Moves(peers, file).brought("scanner", "1.2.3", AskedBy(sender=sender, originator="VIEWER", message_id=1), ours)
    assert file.read_text(encoding="utf-8").splitlines() == ["PACS"]
    again = Moves(peers, file)
    with again.answered("scanner", "PACS", "1.2.3"), again.answered("scanner", "SILENT", "1.2.3"):
        assert not again.brought("scanner", "1.2.3", AskedBy(sender="PACS"), ours)
        assert again.brought("scanner", "1.2.3", AskedBy(sender="SILENT"), ours)


@pytest.mark.parametrize(
    ("said", "is_prior"),
    [({"originator_aet": "NODE", "originator_id": PRIOR_MESSAGE}, 1), ({"originator_aet": "NODE"}, 0), ({}, 0)],
    ids=["asked for", "another number", "sent"],
)
def test_the_listener_reads_it_in_the_request(
    series: Series, tmp_path: Path, said: dict[str, Any], is_prior: int
) -> None:
    store = node_at(tmp_path / "node")
    listener = DicomListener(store)
    listener.start()
    sender = AE(ae_title="PACS")
    sender.add_requested_context(CTImageStorage)
    try:
        association = sender.associate("127.0.0.1", listener.port, ae_title="CARINA")
        assert association.send_c_store(dcmread(series.as_sent[0]), **said).Status == 0
        association.release()
    finally:
        listener.stop()
    with store.engine.connect() as connection:
        assert connection.execute(select(ARRIVAL.c.is_prior)).scalars().all() == [is_prior]
        assert connection.execute(select(INSTANCE.c.is_prior)).scalars().all() == [is_prior]
