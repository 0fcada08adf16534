"""Damaged headers and claims larger than the file: headers, a refusal that names the file, and never anything else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from carina.dicom import sources
from carina.dicom.headers import slice_headers
from carina.errors import BadSeries
from damaged_files import DAMAGES, SYNTAXES, damaged, read_all, whole_file
from reading_slices import ct_slice, save


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", ["slice", "frames"])
def test_whole_files_are_read(tmp_path: Path, syntax: str, kind: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(whole_file(syntax, kind))
    assert read_all(file) == "read"


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 100):
        file = tmp_path / f"file {seed}"
        file.write_bytes(damaged(seed))
        read_all(file)


@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda one: one.__name__.strip("_"))
def test_each_damage_changes_files_and_some_are_refused(tmp_path: Path, damage: object) -> None:
    outcomes = set()
    for seed in range(60):
        content = bytearray(whole_file(SYNTAXES[seed % len(SYNTAXES)], "slice"))
        damage(content, random.Random(seed))  # type: ignore[operator]
        file = tmp_path / "file"
        file.write_bytes(content)
        outcomes.add(read_all(file))
    assert len(outcomes) > 1


def test_more_frames_than_any_ct_has_are_refused(tmp_path: Path) -> None:
    count = (1 << 16) + 1
    one: dict[str, Any] = {"Rows": 1, "Columns": 1, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    file = save(ct_slice((0, 0, 0), 1, NumberOfFrames=count, PixelData=bytes(count + 1), **one), tmp_path / "many.dcm")
    with pytest.raises(BadSeries, match=r"many\.dcm: it has 65537 frames; at most 65536 are read"):
        slice_headers(file)


@pytest.mark.parametrize("claimed", [2, 1000, 2**31 - 1])
def test_frames_that_the_file_can_not_hold_are_not_asked_of_memory(tmp_path: Path, claimed: int) -> None:
    file = save(ct_slice((0, 0, 0), 1, NumberOfFrames=claimed), tmp_path / "few.dcm")
    (header,) = slice_headers(file)
    assert header.pixels is not None and header.pixels.code == "series.truncated"


def test_a_deflated_header_is_inflated_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct_slice((0, 0, 0), 1)
    dataset.add_new((0x0009, 0x0010), "LO", "BOMB")
    dataset.add_new((0x0009, 0x1001), "OB", bytes(1 << 20))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = save(dataset, tmp_path / "bomb.dcm")
    assert file.stat().st_size < 10_000 and len(slice_headers(file)) == 1
    monkeypatch.setattr(sources, "LARGEST_INFLATED_HEADER", 1 << 19)
    with pytest.raises(BadSeries, match=r"bomb\.dcm: it is damaged in its header: .*that a header may have"):
        slice_headers(file)
