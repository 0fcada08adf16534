"""Compressed pixel data: every codec, fragments, offset tables, files cut short."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from carina.dicom.find import find_series
from carina.dicom.read import read_source
from carina.errors import BadSeries
from reading_codecs import CODECS, compressed
from reading_slices import (
    ANY,
    COLUMNS,
    EVEN,
    ROWS,
    assert_linear,
    ct_slice,
    enhanced,
    refusal,
    save,
    series_of,
    write_series,
)


@pytest.mark.parametrize("syntax", [*CODECS, RLELossless])
def test_single_frames_are_decoded_exactly(tmp_path: Path, syntax: str) -> None:
    for file in write_series(tmp_path, EVEN):
        save(compressed(dcmread(file), syntax), file)
    assert_linear(read_source(series_of(tmp_path)))


@pytest.mark.parametrize("syntax", [*CODECS, RLELossless])
def test_frames_of_a_multi_frame_object_are_decoded_exactly(tmp_path: Path, syntax: str) -> None:
    save(compressed(enhanced(EVEN), syntax), tmp_path / "a")
    assert_linear(read_source(series_of(tmp_path)))


def test_fragments_are_joined(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "single", EVEN):
        save(compressed(dcmread(file), "1.2.840.10008.1.2.4.80", 3, has_bot=False), file)
    assert_linear(read_source(series_of(tmp_path / "single")))
    save(compressed(enhanced(EVEN), "1.2.840.10008.1.2.4.80", 3), tmp_path / "multi" / "a")
    assert_linear(read_source(series_of(tmp_path / "multi")))


def test_fragments_that_can_not_be_dealt_out_are_refused(tmp_path: Path) -> None:
    save(compressed(enhanced(EVEN), "1.2.840.10008.1.2.4.80", 3, has_bot=False), tmp_path / "a")
    with pytest.raises(BadSeries, match="36 fragments for 12 frames and no offset table") as caught:
        read_source(series_of(tmp_path))
    assert caught.value.code == "series.decode"


def test_a_compressed_file_cut_short_is_seen_in_the_listing(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    for file in files:
        save(compressed(dcmread(file), "1.2.840.10008.1.2.4.80"), file)
    files[2].write_bytes(files[2].read_bytes()[:-60])
    error = refusal(tmp_path)
    assert error.code == "series.truncated" and "014: it is truncated: its pixel data ends early" in error.message


def test_damaged_pixel_data_is_named(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    for file in files:
        dataset = compressed(dcmread(file), "1.2.840.10008.1.2.4.80")
        if file == files[6]:
            dataset.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + bytes(200)])
        save(dataset, file)
    with pytest.raises(BadSeries, match="042: pixel data can't be decoded") as caught:
        read_source(series_of(tmp_path))
    assert caught.value.code == "series.decode"


def test_a_picture_of_another_size_than_the_header_says_is_named(tmp_path: Path) -> None:
    for file in write_series(tmp_path, EVEN):
        dataset = compressed(dcmread(file), "1.2.840.10008.1.2.4.80")
        dataset.Rows = ROWS + 1
        save(dataset, file)
    with pytest.raises(BadSeries, match="has 20 x 24 pixels, its header says 21 x 24"):
        read_source(series_of(tmp_path))


def test_a_value_that_does_not_fit_its_vr_does_not_stop_the_listing(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    raw = files[0].read_bytes()
    assert raw.count(b"1.5\\2.0") == 1
    files[0].write_bytes(raw.replace(b"1.5\\2.0", b"1.5\\abc"))
    found = find_series(tmp_path, ANY)
    seen = r"000: Pixel Spacing (0028,0030) is '1.5\abc', expected two numbers of mm above 0"
    assert any(seen in one.reason for one in found)


def test_signed_values_in_an_unsigned_codec(tmp_path: Path) -> None:
    values = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) - 300).astype("<i2")
    for k, height in enumerate(EVEN):
        dataset = ct_slice((0, 0, height), k + 1, PixelRepresentation=1, PixelData=values.tobytes(), RescaleIntercept=0)
        save(compressed(dataset, "1.2.840.10008.1.2.4.80"), tmp_path / str(k))
    assert np.array_equal(read_source(series_of(tmp_path)).hu[3], values)
