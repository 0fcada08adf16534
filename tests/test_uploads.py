"""Uploads: chunks that are kept whatever ends the server, names of strangers, and bounds."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import BadSeries
from carina.receive import uploads as uploads_module
from carina.receive.unpack import safe_parts
from carina.receive.upload_errors import NoRoomForUpload, NoUpload, UploadRefused
from carina.receive.upload_share import kept_share, room_for
from carina.receive.uploads import Received
from made_uploads import begun, finished, take, uploads, whole

# Chunks


NAME = st.text("abc.é 0123", min_size=1, max_size=8).filter(lambda one: one.strip(".") and not one.endswith(".zip"))
FILES = st.dictionaries(NAME, st.binary(min_size=1, max_size=40), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(files=FILES, size=st.integers(1, 15), again=st.lists(st.integers(0, 30), max_size=4))
def test_what_comes_in_chunks_is_what_was_sent_however_often_the_node_starts(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], size: int, again: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("node")
    taking, sent = uploads(folder), 0
    upload = begun(taking, {name: len(data) for name, data in files.items()})
    for name, data in files.items():
        for offset in range(0, len(data), size):
            sent += 1
            taking = uploads(folder) if sent in again else taking
            assert take(taking, upload, name, offset, data[offset : offset + size]) == min(len(data), offset + size)
            if sent in again:
                with pytest.raises(UploadRefused, match=r"the chunk begins at byte \d+; \d+ bytes are there"):
                    take(taking, upload, name, offset, data[offset : offset + size])
    assert {one.name: one.bytes for one in taking.received(upload)} == {name: len(data) for name, data in files.items()}
    junk = {".DS_Store", "Thumbs.db", "__MACOSX"}
    assert finished(uploads(folder), upload) == {name: data for name, data in files.items() if name not in junk}


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_chunk_that_was_not_answered_is_as_if_it_had_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Killed after the write, before the flush, or before the rename: the bytes that were answered stay."""
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 6, "b": 3})
    take(taking, upload, "a", 0, b"abc")

    def die(*_: object) -> None:
        raise KeyboardInterrupt("killed")

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt, match="killed"):
        if broken == "fsync":
            dying.setattr(os, "fsync", die)
        else:
            dying.setattr(Path, "rename", die)
        take(taking, upload, "a", 3, b"XXXXXX")
    later = uploads(tmp_path)
    assert later.received(upload) == [Received(name="a", bytes=3)]
    assert take(later, upload, "a", 3, b"def") == 6
    assert take(later, upload, "b", 0, b"ghi") == 3
    assert finished(later, upload) == {"a": b"abcdef", "b": b"ghi"}


def test_a_chunk_with_another_content_than_its_digest_is_not_taken(tmp_path: Path) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 3})
    with pytest.raises(UploadRefused, match="the chunk is not what its digest says"):
        taking.take(upload, "a", 0, b"abc", hashlib.sha256(b"abd").digest())
    assert taking.received(upload) == []


TRICKS = [
    "/etc/passwd",
    "../a",
    "a/../b",
    "a//b",
    "./a",
    "a\\b",
    "",
    "a\nb",
    "a\x00b",
    "x" * 201,
    "a/" * 20 + "b",
    "\ud800",
]


@pytest.mark.parametrize("name", [*TRICKS, "\ud800"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    taking = uploads(tmp_path / "node")
    upload = begun(taking, {"a": 3})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UploadRefused, match="a file has a name that is"):
        take(taking, upload, name, 0, b"abc")
    assert sorted(tmp_path.rglob("*")) == before


@given(st.text(max_size=30))
def test_a_name_is_refused_or_names_something_below(name: str) -> None:
    try:
        parts = safe_parts(name)
    except ValueError:
        return
    path = Path("/folder").joinpath(*parts)
    assert os.path.normpath(path) == str(path) and path.is_relative_to("/folder") and path != Path("/folder")


def test_files_that_share_a_name_with_a_folder_are_refused(tmp_path: Path) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 1, "a/b": 1})
    take(taking, upload, "a", 0, b"x")
    take(taking, upload, "a/b", 0, b"x")
    with pytest.raises(BadSeries, match="a file and a folder, have one name"):
        finished(taking, upload)
    assert not (tmp_path / "uploads" / upload.id / "content.new").exists()


# Whose it is, and how much


def test_the_same_files_of_the_same_person_are_the_same_upload(tmp_path: Path) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 3})
    assert begun(uploads(tmp_path), {"a": 3}) == upload
    assert begun(taking, {"a": 3}, owner="another").id != upload.id
    assert begun(taking, {"a": 3}, key="another").id != upload.id
    with pytest.raises(NoUpload, match="no such upload of yours"):
        taking.find(upload.id, "another")
    with pytest.raises(NoUpload, match="no such upload"):
        taking.find("../" + upload.id, "op")
    take(taking, upload, "a", 0, b"abc")
    finished(taking, upload)
    assert begun(taking, {"a": 3}).id != upload.id


def test_no_more_is_taken_than_the_settings_and_the_disk_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taking = uploads(tmp_path, gb=1e-7)
    too_large = "1.01e-07 GB are too large: this node takes 1e-07 GB at a time at most .* send less, such as one series"
    with pytest.raises(NoRoomForUpload, match=too_large):
        begun(taking, {"a": 101})
    first = begun(taking, {"a": 60})
    with pytest.raises(NoRoomForUpload, match=r"4e-08 GB are left .*: wait until others are run"):
        begun(taking, {"a": 60}, key="second")
    with pytest.raises(NoRoomForUpload, match="more comes than was said: 1 file of 60 bytes"):
        take(taking, first, "a", 0, bytes(61))
    take(taking, first, "a", 0, bytes(30))
    with pytest.raises(NoRoomForUpload, match="more comes than was said"):
        take(taking, first, "b", 0, bytes(30))
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoRoomForUpload, match=r"5\.0 GB are free, 5 GB are to stay free \(node\.free_gb\)"):
        take(uploads(tmp_path, free_gb=5.0), first, "a", 30, bytes(30))


@pytest.mark.parametrize(("files", "size"), [({"a": 3}, "1 of 3"), ({"a": 2, "b": 2}, "2 of 4"), ({"a": 5}, "1 of 5")])
def test_a_key_means_one_announcement(tmp_path: Path, files: dict[str, int], size: str) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 4})
    words = f"1 file of 4 bytes together were announced, not {size}: take another key, or give upload {upload.id} up"
    with pytest.raises(UploadRefused, match=words):
        begun(taking, files)
    assert taking.discard(upload)
    assert begun(taking, files).id != upload.id


def test_facts_of_finished_uploads_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        taking, upload = whole(tmp_path, **{f"f{number}": b"abc"})
        finished(taking, upload)
    taking = uploads(tmp_path)
    assert taking.unfinished() == []
    monkeypatch.setattr(uploads_module, "read_json", lambda *_: pytest.fail("is read again"))
    upload = begun(taking, {"a": 3})
    assert taking.unfinished() == [upload]


PROJECTS = ("a", "b", "c")


@given(st.lists(st.tuples(st.sampled_from(PROJECTS), st.floats(0, 1)), max_size=20), st.integers(0, 3))
def test_each_project_can_have_its_share_whatever_others_announce(asked: list[tuple[str, float]], silent: int) -> None:
    projects, taken = len(PROJECTS) + silent, dict.fromkeys(PROJECTS, 0.0)
    share = kept_share(1.0, projects)
    for name, size in asked:
        if size <= room_for(name, {one: taken[one] for one in PROJECTS if taken[one]}, 1.0, projects):
            taken[name] += size
        assert sum(taken.values()) <= 1 + 1e-9
        for one in (*PROJECTS, "silent")[: len(PROJECTS) + bool(silent)]:
            assert room_for(one, taken, 1.0, projects) >= share - taken.get(one, 0.0) - 1e-9


def test_a_project_alone_has_all_the_room() -> None:
    assert room_for("a", {}, 7.0, 1) == 7.0
    assert room_for("a", {}, 8.0, 2) == 6.0


def test_what_is_not_whole_is_not_finished(tmp_path: Path) -> None:
    taking = uploads(tmp_path)
    upload = begun(taking, {"a": 6, "b": 1})
    take(taking, upload, "a", 0, b"abc")
    with pytest.raises(UploadRefused, match="1 of 2 files and 3 of 7 bytes have come: send the rest"):
        finished(taking, upload)


def test_finishing_twice_hands_on_one_content(tmp_path: Path) -> None:
    taking, upload = whole(tmp_path, a__nii=b"abc")
    assert finished(taking, upload) == finished(uploads(tmp_path), upload) == {"a.nii": b"abc"}
    assert not (tmp_path / "uploads" / upload.id / "parts").exists()
