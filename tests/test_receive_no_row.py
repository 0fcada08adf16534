"""A database that takes no row: the sender is told, in one line, and the file that was for it is not there either."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from carina.receive.files import arriving_file, read_says
from carina.receive.instance import NO_ROOM, NotAccepted
from carina.receive.store import Accepted, InstanceStore, SentBy
from carina.receive.stow import StowRequest, store_over_the_web
from received_files import instance_rows, new_store, small_ct, stored_files

ORIGIN = SentBy("any", "CT1@127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InstanceStore]:
    made = new_store(tmp_path)
    yield made
    made.engine.dispose()


def accept(store: InstanceStore, uid: str, series: str) -> Accepted:
    file = store.folder.parent / "sent.dcm"
    file.write_bytes(small_ct(uid, series))
    with arriving_file(file, read_says(file)) as arriving:
        assert (arriving.sop_class_uid, arriving.transfer_syntax_uid) == (CTImageStorage, ExplicitVRLittleEndian)
        return store.accept(arriving, ORIGIN)


def fill(store: InstanceStore, *, pages: int) -> None:
    """Let the database grow by no more than so many pages: SQLite then says that the disk is full."""

    def limit(connection: object, *_: object) -> None:
        connection.execute(f"pragma max_page_count = {pages}")  # type: ignore[attr-defined]

    event.listen(store.engine, "checkout", limit)
    store.engine.dispose()


def pages_of(store: InstanceStore) -> int:
    with store.engine.connect() as connection:
        return int(connection.execute(text("pragma page_count")).scalar_one())


def test_a_full_database_leaves_no_file_that_nobody_was_promised(store: InstanceStore) -> None:
    fill(store, pages=pages_of(store) + 2)
    promised: list[str] = []
    refused: list[NotAccepted] = []
    for number in range(1, 60):
        try:
            accept(store, f"1.2.3.{number}", f"1.2.{number}")
            promised.append(f"1.2.3.{number}.dcm")
        except NotAccepted as error:
            refused.append(error)
    assert promised
    assert refused
    assert [file.name for file in stored_files(store)] == sorted(promised)
    assert {one.status for one in refused} == {NO_ROOM}
    assert "no space is left there" in refused[0].message


def fails_at(store: InstanceStore, moment: str) -> None:
    def fail(*_: object) -> None:
        raise OperationalError("insert", {}, Exception("server closed the connection\n\tThis probably means"))

    event.listen(store.engine, moment, fail)


def test_a_commit_that_fails_takes_the_file_back_and_the_same_sent_again_is_taken(store: InstanceStore) -> None:
    fails_at(store, "commit")
    with pytest.raises(NotAccepted, match=r"the database can't be used \(server closed the connection"):
        accept(store, "1.2.3.4", "1.2.3")
    assert not stored_files(store)
    store.engine.dispatch._clear()
    assert accept(store, "1.2.3.4", "1.2.3") is Accepted.NEW
    assert (instance_rows(store.engine), len(stored_files(store))) == (1, 1)


def test_over_the_web_it_is_a_refusal_that_passes(store: InstanceStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    fails_at(store, "commit")
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + small_ct() + b"\r\n--b--"
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    answer = store_over_the_web(store, StowRequest(origin=ORIGIN, content_type=kind), [body])
    assert (answer.status, stored_files(store)) == (503, [])
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert "the database can't be used" in caplog.text
