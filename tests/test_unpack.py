"""Archives of strangers, and what becomes of them in an upload."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import BadSeries
from carina.receive.unpack import LARGEST_DIRECTORY, unpack
from made_uploads import finished, whole

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
    folder.parent.mkdir()
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


@settings(deadline=None, max_examples=150)
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
