"""Crashes and power cuts while an instance is accepted: what was promised is there, and nothing is there by half.

A file's content, its place in a folder and its row reach the disk in any order. A sender is answered once all three are
there; whatever a power cut leaves of one that was not answered, the node starts with rows that are true.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from sqlalchemy import Engine, Row, delete, event, select, update

from carina import __version__
from carina.config import DicomSettings, NodeSettings, Settings
from carina.database import INSTANCE, open_database, upgrade_schema
from carina.receive import store as store_module
from carina.receive.commitment import ALL_THERE, SOME_MISSING
from carina.receive.files import arriving_file, read_says
from carina.receive.instance import IMPLEMENTATION_UID, NO_ROOM, Arriving, NotAccepted, file_head
from carina.receive.recover import recover
from carina.receive.store import Accepted, InstanceStore, SentBy
from received_files import arrival_states, instance_rows, small_ct, stored_files
from receiving import commitment_report
from waiting import wait_until

ORIGIN = SentBy("scanner", "CT1@127.0.0.1")

CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda data: data,
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "beginning": lambda data: data[:512] + bytes(len(data) - 512),
    "end": lambda data: bytes(512) + data[512:],
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + bytes(512),
}


@dataclass(frozen=True)
class Left:
    """What of an instance is on the disk."""

    content: str
    place: str
    has_row: bool


STATES = [Left(*state) for state in product(CONTENTS, ("moved", "a part", "gone"), (True, False))]


@pytest.fixture
def store(tmp_path: Path, node_database: str) -> Iterator[InstanceStore]:
    (tmp_path / "node").mkdir()
    engine = open_database(node_database)
    upgrade_schema(engine)
    node = NodeSettings(folder=str(tmp_path / "node"), free_gb=0)
    yield InstanceStore(Settings(node=node, dicom=DicomSettings(instance_mb=1)), engine)
    engine.dispose()


@pytest.fixture
def arriving(tmp_path: Path) -> Iterator[Callable[[str], Arriving]]:
    def one(uid: str) -> Arriving:
        file = tmp_path / f"{uid}.dcm"
        file.write_bytes(small_ct(uid, rows=32, PixelData=b"\x01\x02" * 1024))
        says = read_says(file)
        return Arriving(
            sop_class_uid=says.sop_class_uid,
            sop_instance_uid=uid,
            transfer_syntax_uid=says.transfer_syntax_uid,
            data=file.read_bytes()[says.data_offset :],
        )

    yield one


MakeArriving = Callable[[str], Arriving]


def is_folder(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def row_of(engine: Engine, uid: str) -> Row[Any] | None:
    with engine.connect() as connection:
        return connection.execute(select(INSTANCE).where(INSTANCE.c.sop_instance_uid == uid)).one_or_none()


def known_uids(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(select(INSTANCE.c.sop_instance_uid)).scalars())


def check_rows_are_true(store: InstanceStore) -> None:
    """Every row has a file that is whole, and every file a row."""
    with store.engine.connect() as connection:
        rows = connection.execute(select(INSTANCE)).all()
    for row in rows:
        with arriving_file(store.folder / row.path, read_says(store.folder / row.path)) as kept:
            assert hashlib.sha256(kept.data).hexdigest() == row.sha256
    assert sorted(store.folder / row.path for row in rows) == stored_files(store)


def leave(store: InstanceStore, uid: str, left: Left) -> None:
    """Put the disk into a state in which a power cut may leave an instance whose sender had no answer yet."""
    row = row_of(store.engine, uid)
    assert row is not None
    file = store.folder / row.path
    file.write_bytes(CONTENTS[left.content](file.read_bytes()))
    if left.place == "a part":
        file.rename(store.folder / "incoming" / ".parts" / f"7-{row.id}")
    elif left.place == "gone":
        file.unlink()
    own = INSTANCE.c.id == row.id
    with store.engine.begin() as connection:
        connection.execute(
            update(INSTANCE).where(own).values(flushed=0) if left.has_row else delete(INSTANCE).where(own)
        )


def test_whatever_a_power_cut_leaves_the_node_starts_with_what_is_true(
    store: InstanceStore, arriving: MakeArriving
) -> None:
    """One instance was promised, others were on their way: every state in which the disk may have them."""
    store.accept(arriving("1.2.3"), ORIGIN)
    uids = {f"1.2.3.{number}": left for number, left in enumerate(STATES)}
    for uid in uids:
        store.accept(arriving(uid), ORIGIN)
    for uid, left in uids.items():
        leave(store, uid, left)

    after = InstanceStore(store.settings, store.engine)
    recover(after.settings, after.engine)
    check_rows_are_true(after)
    kept = {uid for uid, left in uids.items() if left == Left("whole", "moved", has_row=True)}
    assert known_uids(after.engine) == kept | {"1.2.3"}, "1.2.3 was promised"
    became = {uid: after.accept(arriving(uid), ORIGIN) for uid in uids}
    assert became == {uid: Accepted.REPEATED if uid in kept else Accepted.NEW for uid in uids}
    check_rows_are_true(after)
    assert arrival_states(after.engine) == ["arriving"]


def test_an_arrival_whose_only_instance_did_not_reach_the_disk_goes_with_it(
    store: InstanceStore, arriving: MakeArriving
) -> None:
    store.accept(arriving("1.2.3.1"), ORIGIN)
    stored_files(store)[0].write_bytes(b"")
    assert recover(store.settings, store.engine) == 1
    assert arrival_states(store.engine) == []
    assert stored_files(store) == []


def test_an_answer_comes_after_file_folder_and_row_are_on_the_disk(
    store: InstanceStore, arriving: MakeArriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the three in turn is held back, and there is no answer until it is let go."""
    held, let_go, finished = threading.Event(), threading.Event(), []
    wanted = [""]
    flush = os.fsync

    def hold(what: str) -> None:
        if wanted == [what]:
            held.set()
            wait_until(let_go.is_set)
        finished.append(what)

    def slow_flush(handle: int) -> None:
        flush(handle)
        hold("folder" if is_folder(handle) else "file")

    monkeypatch.setattr(os, "fsync", slow_flush)
    event.listen(store.engine, "commit", lambda _: hold("row"))
    store.accept(arriving("1.2.3.0"), ORIGIN)
    for number, wanted[0] in enumerate(("file", "folder", "row"), 1):
        finished.clear()
        held.clear()
        let_go.clear()
        answers: list[Accepted] = []
        one = arriving(f"1.2.3.{number}")
        sender = threading.Thread(target=lambda one=one, answers=answers: answers.append(store.accept(one, ORIGIN)))
        sender.start()
        wait_until(held.is_set)
        assert not answers
        let_go.set()
        sender.join(20)
        assert answers == [Accepted.NEW]
        assert sorted(finished) == ["file", "folder", "row"], "one turn of the disk for each, none twice"


def test_file_folder_and_row_are_flushed_side_by_side(
    store: InstanceStore, arriving: MakeArriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of the three waits for another: each begins before any has ended."""
    store.accept(arriving("1.2.3.0"), ORIGIN)
    together = threading.Barrier(3, timeout=20)
    monkeypatch.setattr(os, "fsync", lambda _: together.wait())
    event.listen(store.engine, "commit", lambda _: together.wait())
    assert store.accept(arriving("1.2.3.1"), ORIGIN) is Accepted.NEW


def failing_flush(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    flush = os.fsync

    def fail(handle: int) -> None:
        if kind == ("folder" if is_folder(handle) else "file"):
            raise OSError(errno.EIO, "Input/output error")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_flushed_is_refused_and_leaves_nothing(
    store: InstanceStore, arriving: MakeArriving, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with monkeypatch.context() as broken:
        failing_flush(broken, kind)
        with pytest.raises(NotAccepted, match=r"can't be written \(Input/output error\)") as caught:
            store.accept(arriving("1.2.3.1"), ORIGIN)
    assert caught.value.status == NO_ROOM
    assert instance_rows(store.engine) == 0
    assert stored_files(store) == []
    assert store.accept(arriving("1.2.3.1"), ORIGIN) is Accepted.NEW


def test_who_sends_again_meanwhile_is_promised_what_the_first_can_no_longer_take_away(
    store: InstanceStore, arriving: MakeArriving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first sender's flush takes long and fails; the second was told 0000H in between."""
    fails, begun = threading.Event(), threading.Event()
    flush = os.fsync

    def first_fails(handle: int) -> None:
        if not begun.is_set() and not is_folder(handle):
            begun.set()
            wait_until(fails.is_set)
            raise OSError(errno.EIO, "Input/output error")
        flush(handle)

    refused: list[NotAccepted] = []

    def send_first() -> None:
        with pytest.raises(NotAccepted) as caught:
            store.accept(arriving("1.2.3.1"), ORIGIN)
        refused.append(caught.value)

    monkeypatch.setattr(os, "fsync", first_fails)
    first = threading.Thread(target=send_first)
    first.start()
    wait_until(begun.is_set)
    while row_of(store.engine, "1.2.3.1") is None:
        first.join(0.01)
        assert first.is_alive()
    assert store.accept(arriving("1.2.3.1"), ORIGIN) is Accepted.REPEATED
    fails.set()
    first.join(20)
    assert len(refused) == 1
    row = row_of(store.engine, "1.2.3.1")
    assert row is not None
    assert row.flushed == 1
    check_rows_are_true(store)


def test_commitment_is_given_for_what_is_on_the_disk(store: InstanceStore, arriving: MakeArriving) -> None:
    store.accept(arriving("1.2.3.1"), ORIGIN)
    asked, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.1"
    asked.TransactionUID, asked.ReferencedSOPSequence = "1.2.9", [item]
    assert commitment_report(store.settings, store.engine, asked)[0] == ALL_THERE
    stored_files(store)[0].write_bytes(b"")
    assert commitment_report(store.settings, store.engine, asked)[0] == SOME_MISSING


class Died(BaseException):
    """What a killed process does not get to do."""


@pytest.mark.parametrize("place", ["header_of", "_open", "_move", "_flush"])
def test_a_killed_process_leaves_what_was_promised_and_nothing_by_half(
    store: InstanceStore, arriving: MakeArriving, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    store.accept(arriving("1.2.3.1"), ORIGIN)

    def die(*_: object, **__: object) -> None:
        raise Died

    with monkeypatch.context() as broken:
        broken.setattr(store_module, place, die)
        with pytest.raises(Died):
            store.accept(arriving("1.2.3.2"), ORIGIN)
    after = InstanceStore(store.settings, store.engine)
    recover(after.settings, after.engine)
    check_rows_are_true(after)
    assert row_of(after.engine, "1.2.3.1") is not None
    after.accept(arriving("1.2.3.2"), ORIGIN)
    check_rows_are_true(after)
    assert instance_rows(after.engine) == 2


_ANY_UID = st.lists(st.integers(1, 99999), min_size=2, max_size=10).map(lambda parts: ".".join(map(str, parts)))


@settings(max_examples=50, deadline=None)
@given(of_class=_ANY_UID, uid=_ANY_UID, syntax=_ANY_UID)
def test_the_head_of_a_file_is_what_pydicom_writes_and_reads(
    tmp_path: Path, of_class: str, uid: str, syntax: str
) -> None:
    arriving = Arriving(sop_class_uid=of_class, sop_instance_uid=uid, transfer_syntax_uid=syntax, data=b"")
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(of_class), UID(uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = f"CARINA_{__version__}"[:16]
    written = DicomBytesIO()
    write_file_meta_info(written, meta)
    assert file_head(arriving) == bytes(128) + b"DICM" + written.getvalue()
    assert len(file_head(arriving)) < 512, "so it shares the first sector with the data set"
    (tmp_path / "head.dcm").write_bytes(file_head(arriving))
    assert dcmread(tmp_path / "head.dcm").file_meta == meta
