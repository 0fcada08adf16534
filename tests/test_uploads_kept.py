"""Uploads that are kept or removed: sweeps, kills, jobs that were refused, and disks that fail."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from carina.errors import BadConfig, CarinaError
from carina.pipeline.places import link_or_copy
from carina.receive import upload_parts
from carina.receive.upload_errors import NoRoomForUpload, NoUpload, UploadRefused
from carina.receive.uploads import Uploads
from made_uploads import LATE, NOON, begun, contents, finished, last_at, take, unused, uploads, whole


def test_what_is_begun_and_forgotten_goes_and_what_is_finished_stays(tmp_path: Path) -> None:
    taking, done = whole(tmp_path, a=b"abc")
    finished(taking, done)
    forgotten = begun(taking, {"a": 3}, key="forgotten")
    alive = begun(taking, {"a": 3}, key="alive", at=NOON - timedelta(days=1))
    take(taking, alive, "a", 0, b"a")
    last_at(taking, alive.id, LATE)
    for one in (done, forgotten):
        last_at(taking, one.id, NOON)
    assert taking.sweep(LATE, lambda job: job != 7) == [forgotten.id]
    assert [one.id for one in taking.unfinished()] == [alive.id]
    assert taking.find(done.id, "op").job == 7
    with pytest.raises(NoUpload, match="no such upload"):
        take(taking, forgotten, "a", 0, b"abc")
    assert taking.sweep(LATE, lambda job: job == 7) == [done.id]


def test_a_byte_and_the_finish_both_begin_the_time_anew(tmp_path: Path) -> None:
    taking, days_ago = uploads(tmp_path), NOON - timedelta(days=9)
    upload = begun(taking, {"deep/a": 2, "b": 1}, at=days_ago)
    for name, offset in (("deep/a", 0), ("deep/a", 1), ("b", 0)):
        last_at(taking, upload.id, days_ago)
        take(taking, upload, name, offset, b"x")
        assert (taking.folder / upload.id).stat().st_mtime > days_ago.timestamp() + 3600
    last_at(taking, upload.id, days_ago)
    with pytest.raises(ZeroDivisionError, match="division"):
        taking.finish(upload, lambda _: 1 // 0)
    assert (taking.folder / upload.id).stat().st_mtime > days_ago.timestamp() + 3600


def test_what_is_finished_while_the_sweep_looks_stays(tmp_path: Path) -> None:
    """Resumed over days: the job is submitted between the sweep's look at the folder and its turn."""
    taking, upload = whole(tmp_path, a=b"abc")

    def submit(_: Path) -> int:
        last_at(taking, upload.id, NOON - timedelta(days=9))
        assert taking.sweep(LATE, unused) == [], "what is being finished is not the sweep's"
        return 7

    assert taking.finish(upload, submit) == 7
    last_at(taking, upload.id, NOON - timedelta(days=9))
    assert taking.sweep(LATE, lambda _: False) == []
    assert contents(tmp_path / "uploads" / upload.id / "content") == {"a": b"abc"}


def test_a_job_whose_id_was_not_kept_is_found(tmp_path: Path) -> None:
    """Killed between the job and its id."""
    taking, upload = whole(tmp_path, a=b"abc")
    with pytest.raises(ZeroDivisionError, match="division"):
        taking.finish(upload, lambda _: 1 // 0)
    content = tmp_path / "uploads" / upload.id / "content"
    later = Uploads(tmp_path, taking.settings, 0.0, lambda place: 9 if place == content else None)
    last_at(later, upload.id, NOON - timedelta(days=9))
    assert later.sweep(LATE, unused) == []
    assert not later.discard(upload)
    assert later.finish(upload, unused) == 9
    assert later.find(upload.id, "op").job == 9


@pytest.mark.parametrize("rest", ["begun", "discarded"])
def test_what_a_kill_left_without_its_facts_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    taking = uploads(tmp_path)
    with monkeypatch.context() as dying:
        if rest == "begun":
            dying.setattr("carina.receive.uploads.write_whole", _die)
            with pytest.raises(KeyboardInterrupt, match="killed"):
                begun(taking, {"a": 3})
        else:
            upload = begun(taking, {"a": 3})
            take(taking, upload, "a", 0, b"abc")
            dying.setattr(shutil, "rmtree", _die)
            with pytest.raises(KeyboardInterrupt, match="killed"):
                taking.discard(upload)
    (left,) = (tmp_path / "uploads").iterdir()
    other = tmp_path / "uploads" / "lost+found"
    other.mkdir()
    later = uploads(tmp_path)
    assert later.unfinished() == []
    last_at(later, left.name, LATE - timedelta(minutes=59))
    assert later.sweep(LATE, unused) == [], "it may be beginning"
    last_at(later, left.name, NOON)
    assert later.sweep(LATE, unused) == [left.name]
    assert list((tmp_path / "uploads").iterdir()) == [other]


def _die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt("killed")


def test_facts_that_can_not_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    taking, upload = whole(tmp_path, a=b"abc")
    finished(taking, upload)
    (tmp_path / "uploads" / upload.id / "upload.json").write_text("{")
    last_at(taking, upload.id, NOON)
    assert taking.sweep(LATE, unused) == []


def test_only_unfinished_uploads_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.receive.uploads.MOST_UPLOADS", 2)
    taking = uploads(tmp_path)
    for number in range(4):
        upload = begun(taking, {"a": 1}, key=f"run {number}")
        take(taking, upload, "a", 0, b"x")
        finished(taking, upload)
    begun(taking, {"a": 1}, key="one")
    begun(taking, {"a": 1}, key="two")
    with pytest.raises(NoRoomForUpload, match="2 uploads are unfinished, and a node has no more at a time") as caught:
        begun(taking, {"a": 1}, key="three")
    assert caught.value.code == "upload.too-many" and "GB" not in caught.value.message
    assert begun(taking, {"a": 1}, key="one").key == "one"


def test_an_upload_whose_job_was_refused_is_found_again_and_not_sent_anew(tmp_path: Path) -> None:
    taking, upload = whole(tmp_path, a=b"abc")
    with pytest.raises(BadConfig, match="no definition"):
        taking.finish(upload, _refuse_pipeline)
    again = begun(uploads(tmp_path), {"a": 3})
    assert again.id == upload.id and taking.is_whole(again) and taking.open_of("op") == [(upload, 3)]
    with pytest.raises(UploadRefused, match="the chunk begins at byte 0; all bytes are there"):
        take(taking, again, "a", 0, b"abc")
    assert finished(taking, again) == {"a": b"abc"}
    assert begun(taking, {"a": 3}).id != upload.id


def _refuse_pipeline(_: Path) -> int:
    raise BadConfig("definition.unknown", "no definition is called 'x'.")


def test_the_disk_is_read_once_however_many_files_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking = uploads(tmp_path)
    walks: list[Path] = []
    walk = Path.rglob

    def counted(self: Path, pattern: str) -> Iterable[Path]:
        walks.append(self)
        return walk(self, pattern)

    monkeypatch.setattr(Path, "rglob", counted)
    upload = begun(taking, {f"CT/{number}": 2 for number in range(40)})
    for number in range(40):
        for offset in range(2):
            take(taking, upload, f"CT/{number}", offset, b"x")
            taking.received(upload)
    assert len(walks) == 1
    assert taking.received(upload) == uploads(tmp_path).received(upload)


# What the disk says


PATIENT = "DOE^JANE"


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG, errno.EISDIR]
)
@pytest.mark.parametrize("where", ["_append", "rename", "fsync", "link", "mkdir"])
def test_no_error_of_the_disk_names_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {f"{PATIENT}/a": 3})

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), f"/node/{PATIENT}/a.0.part")

    with monkeypatch.context() as broken:
        broken.setattr({"fsync": os, "link": os, "_append": upload_parts}.get(where, Path), where, fail)
        broken.setattr("carina.pipeline.places._NO_LINK", frozenset())
        with pytest.raises(CarinaError, match=r"full|too long|name|does not take the upload") as caught:
            take(taking, upload, f"{PATIENT}/a", 0, b"abc")
            taking.finish(upload, unused)
    told = "".join(traceback.format_exception(caught.value))
    assert PATIENT not in told and "\n" not in caught.value.message
    taking.sweep(NOON, unused)
    for one in taking.received(upload):
        assert one.bytes in (0, 3)
    if not any(one.bytes for one in taking.received(upload)):
        take(taking, upload, f"{PATIENT}/a", 0, b"abc")
    assert finished(taking, upload) == {f"{PATIENT}/a": b"abc"}


@pytest.mark.parametrize(
    "names", [("a.1.part/b", "a"), ("a.0.part/b", "a"), ("a", "a.1.part/b"), ("é" * 90 + "/b",) * 2]
)
def test_names_that_exclude_each_other_are_refused_in_a_line(tmp_path: Path, names: tuple[str, str]) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"1": 1, "2": 1})
    take(taking, upload, names[0], 0, b"x")
    with pytest.raises(UploadRefused, match=r"name of a folder|1 bytes are there") as caught:
        take(taking, upload, names[1], 0, b"x")
    assert caught.value.code in ("upload.name", "upload.offset") and "part" not in caught.value.message


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV])
def test_where_there_are_no_links_files_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", refuse)
    taking, upload = whole(tmp_path, a=b"abc", b__nii=b"de")
    assert finished(taking, upload) == {"a": b"abc", "b.nii": b"de"}
    (tmp_path / "there").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="there"):
        link_or_copy(tmp_path / "uploads" / upload.id / "upload.json", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == b"x"
