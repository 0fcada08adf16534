"""Folders that broke the search once, by the kind that each stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from carina.api.study import run
from carina.dicom.find import choose_source, find_series
from carina.dicom.inventory import FileCounts
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.errors import BadSeries
from cohorts import CHEST, how
from reading_slices import refusal, write_series

KINDS = {
    "empty-last-slices": (10, 8.0, FileCounts(used=10, other=1, broken=2), "slices are missing at its end"),
    "same-instances-twice": (12, 8.0, FileCounts(used=12, copy=12, other=1), "voxel for voxel"),
    "uneven-loses-slice": (12, 8.05, FileCounts(used=12, other=1), "vary from 7.50 to 8.50 mm"),
    "out-inside-archive": (12, 8.0, FileCounts(used=12, other=1), ""),
}
"""What is read: slices, their distance in mm, what became of every file, and words of a warning."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_is_read_and_the_rest_is_told(data: Path, kind: str) -> None:
    slices, spacing_mm, counts, words = KINDS[kind]
    source = choose_source(find_series(data / "faults" / kind))
    assert isinstance(source, Series)
    assert source.counts == counts and any(words in warning for warning in source.warnings)
    grid = read_source(source).grid
    assert (grid.shape[0], round(grid.spacing_mm[0], 2)) == (slices, spacing_mm)


@pytest.mark.parametrize(("kind", "right"), [("select-kernel-qr40", "Soft Qr40"), ("select-mip-underscore", "CHEST_5")])
def test_the_right_series_is_taken(data: Path, kind: str, right: str) -> None:
    listing = find_series(data / "faults" / kind)
    assert [one.description for one in listing if one.taken] == [right]


def test_a_pixel_spacing_in_metres_is_refused_by_its_header(data: Path) -> None:
    with pytest.raises(BadSeries, match=r"0\.0019 x 0\.0019 mm") as caught:
        choose_source(find_series(data / "faults" / "pixel-spacing-implausible"))
    assert caught.value.code == "series.spacing"


def test_a_run_tells_what_became_of_every_file_and_is_resumed_whatever_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "settings").mkdir()
    settings = how(tmp_path / "settings")
    files = write_series(tmp_path / "ct", CHEST)
    for file in files[-3:]:
        file.write_bytes(file.read_bytes()[:140])
    first = run(tmp_path / "ct", tmp_path / "out", settings)
    told = first.manifest.inputs["files"]
    names = sorted(file.name for file in files[-3:])
    assert [one["file"] for one in told.pop("broken_files")] == names
    assert told == {"used": 9, "copy": 0, "other": 0, "broken": 3}
    assert any("slices are missing at its end" in warning for warning in first.warnings)
    (tmp_path / "ct" / "notes.txt").write_text("beside")
    again = run(tmp_path / "ct", tmp_path / "out", settings)
    assert again.manifest.started == first.manifest.started and again.manifest.fingerprint == first.manifest.fingerprint


PACKED = {
    "study.zip": b"PK\x03\x04" + bytes(400),
    "study.tar.gz": b"\x1f\x8b\x08" + bytes(400),
    "study.tar": bytes(257) + b"ustar" + bytes(400),
    "study.7z": b"7z\xbc\xaf\x27\x1c" + bytes(400),
    "study": b"Rar!\x1a\x07" + bytes(400),
}


@pytest.mark.parametrize("name", PACKED)
def test_an_archive_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / name).write_bytes(PACKED[name])
    (tmp_path / "readme.txt").write_text("the study")
    cure = "not looked into: unpack what holds the CT and give the folder."
    whole = f"none of its 2 files is DICOM or a volume file; inner/{name} is an archive, {cure}"
    assert whole in refusal(tmp_path).message
    assert f"{name} is an archive, {cure}" in refusal(tmp_path / "inner" / name).message


def test_several_archives_are_counted(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.zip").write_bytes(PACKED["study.zip"])
    assert "; 0.zip and 2 more are archives, not looked into" in refusal(tmp_path).message


def test_what_is_no_archive_is_not_called_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("PK is a name")
    assert "unpack" not in refusal(tmp_path).message
