"""Uploads: chunks that are kept whatever ends the server, archives of strangers, bounds, and what is removed when."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import struct
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carina.errors import BadSeries
from carina.receive.unpack import LARGEST_DIRECTORY, safe_parts, unpack
from carina.receive.uploads import NoRoomForUpload, NoUpload, Received, Upload, UploadRefused, Uploads, new_upload_id
from carina.sections import UploadSettings

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def uploads(folder: Path, *, free_gb: float = 0.0, gb: float = 1.0, hours: float = 1.0) -> Uploads:
    return Uploads(folder, UploadSettings(gb=gb, abandoned_h=hours), free_gb)


def begun(taking: Uploads, files: dict[str, int], key: str = "k", owner: str = "op", at: datetime = NOON) -> Upload:
    size = sum(files.values())
    wanted = Upload(id=new_upload_id(), owner=owner, key=key, files=len(files), bytes=size, begun_at=at)
    return taking.begin(wanted)


def take(taking: Uploads, upload: Upload, name: str, offset: int, chunk: bytes) -> int:
    return taking.take(upload, name, offset, chunk, hashlib.sha256(chunk).digest())


def whole(folder: Path, **files: bytes) -> tuple[Uploads, Upload]:
    """An upload whose files have come, each in one chunk; dots in names are written as two underscores."""
    taking = uploads(folder)
    named = {name.replace("__", "."): data for name, data in files.items()}
    upload = begun(taking, {name: len(data) for name, data in named.items()})
    for name, data in named.items():
        take(taking, upload, name, 0, data)
    return taking, upload


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(taking: Uploads, upload: Upload) -> dict[str, bytes]:
    return contents(taking.finish(upload, lambda content: content))


# Chunks


NAME = st.text("abc.é 0123", min_size=1, max_size=8).filter(lambda one: one.strip(".") and not one.endswith(".zip"))
FILES = st.dictionaries(NAME, st.binary(min_size=1, max_size=40), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    with pytest.raises(NoRoomForUpload, match=r"announced, 1e-07 GB are left for uploads \(uploads\.gb\)"):
        begun(taking, {"a": 101})
    first = begun(taking, {"a": 60})
    with pytest.raises(NoRoomForUpload, match="4e-08 GB are left"):
        begun(taking, {"a": 60}, key="second")
    with pytest.raises(NoRoomForUpload, match="more comes than was said: 1 files of 60 bytes"):
        take(taking, first, "a", 0, bytes(61))
    take(taking, first, "a", 0, bytes(30))
    with pytest.raises(NoRoomForUpload, match="more comes than was said"):
        take(taking, first, "b", 0, bytes(30))
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NoRoomForUpload, match=r"5\.0 GB are free, 5 GB are to stay free \(node\.free_gb\)"):
        take(uploads(tmp_path, free_gb=5.0), first, "a", 30, bytes(30))


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


def test_what_is_begun_and_forgotten_goes_and_what_is_finished_stays(tmp_path: Path) -> None:
    taking, done = whole(tmp_path, a=b"abc")
    finished(taking, done)
    forgotten = begun(taking, {"a": 3}, key="forgotten")
    alive = begun(taking, {"a": 3}, key="alive", at=NOON - timedelta(days=1))
    take(taking, alive, "a", 0, b"a")
    part = next((tmp_path / "uploads" / alive.id / "parts").iterdir())
    late = NOON + timedelta(hours=2)
    os.utime(part, (late.timestamp(), late.timestamp()))
    os.utime(tmp_path / "uploads" / forgotten.id / "parts", (NOON.timestamp(), NOON.timestamp()))
    assert taking.sweep(late) == [forgotten.id]
    assert [one.id for one in taking.all()] == [alive.id, done.id]
    with pytest.raises(NoUpload, match="no such upload"):
        take(taking, forgotten, "a", 0, b"abc")


# Archives


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def encrypted() -> bytes:
    data = bytearray(zipped(("a", b"x")))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(mark) + place] |= 1
    return bytes(data)


def long_list() -> bytes:
    data = bytearray(zipped(("a", b"x")))
    struct.pack_into("<L", data, data.rfind(b"PK\x05\x06") + 12, LARGEST_DIRECTORY + 1)
    return bytes(data)


def long_list_64() -> bytes:
    """The 64-bit record, which Python's reader believes rather than the other."""
    data, end = zipped(("a", b"x")), b"PK\x05\x06"
    place = data.rfind(end)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**33, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    return data[:place] + record + locator + data[place:]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (zipped(("../a", b"x")), "file 1 of the zip has a name that is no relative path"),
        (zipped(("ok", b"x"), ("/etc/a", b"x")), "file 2 of the zip has a name that is no relative path"),
        (zipped(("a\\..\\b\n", b"x")), "file 1 of the zip has a name"),
        (zipped((link("a"), b"/etc/passwd")), "file 1 of the zip is a link or a device"),
        (zipped(("a", b"x"), ("a/b", b"x")), "file 2 of the zip has the name of another in it"),
        (zipped(("a", b"x"), method=zipfile.ZIP_LZMA), "is not packed by deflate"),
        (encrypted(), "the zip is encrypted"),
        (b"no zip at all", "is no zip archive, or its end is missing"),
        (zipped(("a", b"x" * 100))[:60], "is no zip archive, or its end is missing"),
        (zipped(("a", os.urandom(500))).replace(b"PK\x03\x04", b"PK\x03\x05"), "the zip can't be unpacked"),
        (long_list(), "the zip's list of files has 32 MB"),
        (long_list_64(), "the zip's list of files has 8590 MB"),
        (zipped(("a", bytes(10**6)), ("b", bytes(10**6))), r"unpacks to more than the 0\.0015 GB"),
    ],
)
def test_an_archive_of_strangers_is_told_in_a_line_and_writes_nowhere_else(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    archive, folder = tmp_path / "their.zip", tmp_path / "inside" / "folder"
    archive.write_bytes(data)
    with pytest.raises(BadSeries, match=expected) as caught:
        unpack(archive, folder, 1_500_000)
    assert "\n" not in caught.value.message and "etc" not in caught.value.message
    assert set(tmp_path.iterdir()) <= {archive, tmp_path / "inside"}


CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6)


def test_a_bomb_ends_at_the_bound(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(zipped(("a", bytes(50_000_000))))
    assert archive.stat().st_size < 60_000
    with pytest.raises(BadSeries, match=r"unpacks to more than the 0\.01 GB"):
        unpack(archive, tmp_path / "out", 10_000_000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 10_000_000


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=CHANGES, cut=st.integers(0, 300))
def test_a_damaged_archive_never_breaks_anything(
    tmp_path_factory: pytest.TempPathFactory, change: list[tuple[int, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("zip")
    data = bytearray(zipped(("a/b.dcm", b"x" * 60), ("c", bytes(90))))
    for place, value in change:
        data[place % len(data)] = value
    (folder / "a.zip").write_bytes(data[: len(data) - (cut if cut > 250 else 0)])
    try:
        assert unpack(folder / "a.zip", folder / "out", 10_000) <= 10_000
    except BadSeries as error:
        assert error.code in ("upload.zip", "upload.too-large")
    assert {path.name for path in folder.iterdir()} <= {"a.zip", "out"}


def test_an_upload_unpacks_what_is_zipped_and_leaves_out_what_computers_add(tmp_path: Path) -> None:
    members = (("1.dcm", b"one"), ("deep/2.dcm", b"two"), ("__MACOSX/._1.dcm", b"no"), ("deep/.DS_Store", b"no"))
    taking, upload = whole(tmp_path, study__ZIP=zipped(*members), scan__nii=b"three")
    assert finished(taking, upload) == {"study/1.dcm": b"one", "study/deep/2.dcm": b"two", "scan.nii": b"three"}


@pytest.mark.parametrize("data", [zipped(), zipped(("__MACOSX/a", b"x"))])
def test_an_upload_of_nothing_is_said(tmp_path: Path, data: bytes) -> None:
    taking, upload = whole(tmp_path, a__zip=data)
    with pytest.raises(BadSeries, match="the upload holds no file"):
        finished(taking, upload)
    assert not (tmp_path / "uploads" / upload.id / "content.new").exists()
