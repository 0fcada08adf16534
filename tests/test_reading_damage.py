"""Damaged headers and claims larger than the file: headers, a refusal that names the file, and never anything else."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from carina.dicom import sources
from carina.dicom.decode import open_pixels
from carina.dicom.headers import slice_headers
from carina.dicom.sources import Plain
from carina.dicom.whole_header import read_header
from carina.errors import BadSeries
from damaged_files import DAMAGES, SYNTAXES, damaged, read_all, whole_file
from reading_slices import EVEN, ct_slice, save, write_series
from test_inventory import SPOILERS, counted


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


def _vanishes(file: Path) -> Path:
    file.unlink()
    return file


def _folder(file: Path) -> Path:
    return file.parent


def _endless_name(file: Path) -> Path:
    return file.with_name("n" * 300)


@pytest.mark.parametrize("change", [_vanishes, _folder, _endless_name])
def test_what_the_operating_system_refuses_is_refused_by_name(tmp_path: Path, change: Callable[[Path], Path]) -> None:
    file = change(save(ct_slice((0, 0, 0), 1), tmp_path / "slice"))
    for read in (slice_headers, open_pixels, read_header):
        with pytest.raises(BadSeries, match="can't be read") as caught:
            read(file)
        assert caught.value.code == "series.unreadable" and file.name[:200] in caught.value.message


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_disk_that_fails_while_reading_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    file = save(ct_slice((0, 0, 0), 1), tmp_path / "slice")
    left, take = calls, Plain.read

    def fails(source: Plain, at: int, size: int) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EIO, "Input/output error")
        return take(source, at, size)

    monkeypatch.setattr(Plain, "read", fails)
    with pytest.raises(BadSeries, match=r"slice: can't be read \(Input/output error\)"):
        slice_headers(file)


def test_a_file_that_shrinks_after_the_listing_is_told(tmp_path: Path) -> None:
    file = save(ct_slice((0, 0, 0), 1), tmp_path / "slice")
    opened = open_pixels(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadSeries, match="slice: its pixel data ends early"):
        opened.stored(None)
    file.unlink()
    with pytest.raises(BadSeries, match="slice: can't be read"):
        opened.stored(None)


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize(("whole", "broken"), [(0, 1), (0, 2), (1, 1), (1, 2)])
def test_what_a_loss_left_is_told_once_and_as_what_it_is(
    tmp_path: Path, whole: int, broken: int, spoil: Callable[[Path], object]
) -> None:
    for number, file in enumerate(write_series(tmp_path, EVEN)):
        moved = file.rename(file.with_name(f"{number}.dcm"))
        if number < broken:
            spoil(moved)
        elif number >= broken + whole:
            moved.unlink()
    for one in counted(tmp_path):
        error = one.error
        assert error is not None and error.message.count("0.dcm") == 1, error
        rest = f", and without {'it' if broken == 1 else 'them'} the series has 1 slice; a volume needs several."
        assert error.message.endswith(rest) if whole else "without" not in error.message
