"""Numbers in headers that can't be true, and claims larger than the file: refused by tag before memory is asked for."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from carina.config import LimitSettings, load_settings
from carina.dicom.codestream import check_jpeg, check_jpeg_2000
from carina.dicom.decode import open_pixels
from carina.dicom.find import find_series
from carina.dicom.headers import slice_headers
from carina.dicom.layout import layout_of
from carina.dicom.read import read_source
from carina.dicom.rules import load_rules
from carina.errors import BadSeries
from measured_commands import Measured, measuring
from reading_codecs import CODECS, compressed
from reading_slices import ANY, COLUMNS, EVEN, ROWS, ct_slice, enhanced, refusal, save, series_of, write_series

LARGE, MEGABYTE = 1600, 1_000_000

SLOPES = ("nan", "inf", "-1", "0", "1e39", "-inf", "1\\2", "1,0")
NOT_NEEDED = ("GantryDetectorTilt", "SliceThickness", "KVP", "InstanceNumber", "AcquisitionNumber")


def raw_number(file: Path, keyword: str, text: bytes) -> None:
    """Put a text in place of a decimal or integer string, without anybody's leave."""
    dataset = dcmread(file)
    old = str(dataset[keyword].value).encode()
    content = file.read_bytes()
    place = content.find(struct.pack("<HH", dataset[keyword].tag.group, dataset[keyword].tag.element))
    size = len(old) + len(old) % 2
    new = text + b" " * (len(text) % 2)
    file.write_bytes(content[: place + 6] + struct.pack("<H", len(new)) + new + content[place + 8 + size :])


@pytest.mark.parametrize(
    ("keyword", "text", "words"),
    [
        *(
            ("RescaleSlope", text, "a number above 0")
            for text in ("nan", "inf", "-1", "0", "1e39", "-inf", "1\\2", "1,0")
        ),
        *(("RescaleIntercept", text, "a number of HU") for text in ("nan", "-inf", "1e39", "-1e7", "x", "1e400")),
    ],
)
@pytest.mark.parametrize("where", [slice(None), slice(4, 5)])
def test_rescale_numbers_that_can_not_be_are_refused_by_tag_and_value(
    tmp_path: Path, keyword: str, text: str, words: str, where: slice
) -> None:
    for file in write_series(tmp_path, EVEN)[where]:
        raw_number(file, keyword, text.encode())
    error = refusal(tmp_path)
    tag = "Rescale Slope (0028,1053)" if keyword == "RescaleSlope" else "Rescale Intercept (0028,1052)"
    assert error.code == "series.no-hu"
    assert f"{tag} is '{text}', expected {words}" in error.message


@pytest.mark.parametrize("text", ["nan", "inf", "1e39", "-5", "", "a"])
@pytest.mark.parametrize(
    "keyword", ["GantryDetectorTilt", "SliceThickness", "KVP", "InstanceNumber", "AcquisitionNumber"]
)
def test_other_numbers_that_can_not_be_stop_nothing(tmp_path: Path, keyword: str, text: str) -> None:
    for k, height in enumerate(EVEN):
        file = save(ct_slice((0.0, 0.0, height), k + 1, GantryDetectorTilt=0, KVP=120), tmp_path / str(k))
        raw_number(file, keyword, text.encode())
    assert read_source(series_of(tmp_path)).hu.shape[0] == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"HighBit": 70}, "High Bit (0028,0102) is 70, expected 15"),
        ({"BitsStored": 17}, "Bits Stored (0028,0101) is 17, expected 1 to 16"),
        ({"BitsStored": 0}, "Bits Stored (0028,0101) is 0, expected 1 to 16"),
        ({"PixelRepresentation": 9}, "Pixel Representation (0028,0103) is 9, expected 0 or 1"),
        ({"Rows": 0}, "Rows (0028,0010) is 0, expected a number above 0"),
        ({"Columns": None}, "Columns (0028,0011) is missing, expected a number above 0"),
    ],
)
def test_a_layout_that_can_not_be_is_refused_by_tag(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    file = save(ct_slice((0, 0, 0), 1, **changes), tmp_path / "slice")
    with pytest.raises(BadSeries, match="slice: ") as caught:
        open_pixels(file)
    assert caught.value.code == "series.layout" and words in caught.value.message


@pytest.mark.parametrize(
    ("stored", "changes"),
    [
        ([63536, 0, 2000], {"PixelPaddingValue": 63536}),
        ([63536, 0, 2000], {"PixelPaddingValue": 63000, "PixelPaddingRangeLimit": 65535}),
        ([0x8000, 0, 2000], {"PixelPaddingValue": -32768, "PixelRepresentation": 1}),
        ([0xF000, 0xF3E8, 2000], {"PixelPaddingValue": 0}),
        ([4095, 0, 2000], {"PixelPaddingValue": 4095}),
        ([0x0830, 0, 1000], {"PixelPaddingValue": -2000, "PixelRepresentation": 1}),
        ([0xF830, 0, 1000], {"PixelPaddingValue": -2000, "PixelRepresentation": 1}),
    ],
)
def test_padding_is_air_whether_the_stored_bits_can_hold_it_or_not(
    tmp_path: Path, stored: list[int], changes: dict[str, Any]
) -> None:
    """Of three words in twelve stored bits the first is padding; what lies above them may be an overlay."""
    words = np.resize(np.array(stored, "<u2"), (ROWS, COLUMNS))
    write_series(tmp_path, EVEN, PixelData=words.tobytes(), BitsStored=12, HighBit=11, RescaleIntercept=0, **changes)
    hu = read_source(series_of(tmp_path)).hu[3].ravel()[:3].tolist()
    assert hu == [-1024, stored[1] & 0xFFF, stored[2]]


def claim(file: Path, **changes: Any) -> None:
    dataset = dcmread(file)
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    save(dataset, file)


@pytest.mark.parametrize("frames", [2, 12, 1_000_000, 2_147_483_647])
@pytest.mark.parametrize("syntax", [None, RLELossless, *CODECS])
def test_frames_that_a_file_can_not_hold_are_not_counted_on(tmp_path: Path, frames: int, syntax: str | None) -> None:
    dataset = ct_slice((0, 0, 0), 1)
    file = save(dataset if syntax is None else compressed(dataset, syntax), tmp_path / "slice")
    claim(file, NumberOfFrames=frames)
    headers = slice_headers(file)
    assert len(headers) == 1
    assert headers[0].pixels is not None and headers[0].pixels.code == "series.truncated"
    with pytest.raises(BadSeries, match="slice: it is truncated: its pixel data has"):
        open_pixels(file)


def test_more_frames_than_any_ct_has_are_refused(tmp_path: Path) -> None:
    dataset = ct_slice((0, 0, 0), 1, Rows=1, Columns=1, BitsAllocated=8, BitsStored=8, HighBit=7)
    dataset.NumberOfFrames, dataset.PixelData = 100_000, bytes(100_000)
    file = save(dataset, tmp_path / "slice")
    with pytest.raises(BadSeries, match="slice: it has 100000 frames; at most 65536 are read"):
        slice_headers(file)


def huge(syntax: str) -> bytes:
    """A picture of 1600 x 1600 pixels in a few kilobytes."""
    zeros = np.zeros((LARGE, LARGE), np.uint16)
    if syntax == RLELossless:
        plane = b"\x81\0" * (LARGE * LARGE // 128)
        return struct.pack("<16I", 2, 64, 64 + len(plane), *[0] * 13) + plane + plane
    return CODECS[syntax](zeros)


@pytest.mark.parametrize("syntax", [*CODECS, RLELossless])
def test_a_codestream_larger_than_its_header_says_is_not_decoded(tmp_path: Path, syntax: str) -> None:
    dataset = compressed(ct_slice((0, 0, 0), 1), syntax)
    dataset.PixelData = encapsulate([huge(syntax)])
    file = save(dataset, tmp_path / "slice")
    opened = open_pixels(file)
    with pytest.raises(BadSeries, match="slice: pixel data can't be decoded") as caught:
        opened.stored(None)
    assert caught.value.code == "series.decode"
    if syntax != RLELossless:
        assert f"{LARGE} x {LARGE} pixels, its header says {ROWS} x {COLUMNS}" in caught.value.message


@pytest.mark.parametrize("syntax", [*CODECS, RLELossless])
def test_a_matrix_that_no_ct_has_is_refused_from_the_header(tmp_path: Path, syntax: str) -> None:
    for k, height in enumerate(EVEN):
        dataset = compressed(ct_slice((0, 0, height), k + 1), syntax)
        dataset.Rows = dataset.Columns = 20_000
        save(dataset, tmp_path / str(k))
    error = refusal(tmp_path)
    assert error.code == "series.memory" and "it has 20000 x 20000 pixels (Rows x Columns)" in error.message


def test_a_series_larger_than_the_setting_allows_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    voxels = 12 * ROWS * COLUMNS
    assert find_series(tmp_path, ANY, most_voxels=voxels)[0].taken
    (refused,) = find_series(tmp_path, ANY, most_voxels=voxels - 1)
    assert refused.error is not None and refused.error.code == "series.memory"
    assert f"12 x {ROWS} x {COLUMNS} voxels, more than limits.voxels ({voxels - 1}) allow" in refused.error.message


def test_the_limit_is_read_from_the_settings_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "carina.toml"
    file.write_text("[limits]\nvoxels = 1000\n")
    assert load_settings(file, {}).limits.voxels == 1000
    assert load_settings(file, {"CARINA_LIMITS_VOXELS": "2000"}).limits == LimitSettings(voxels=2000)


def deflated(dataset: Dataset, file: Path, before: bytes = b"", after: bytes = b"") -> None:
    """A deflated file with more in it, before its pixel data or behind."""
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = save(dataset, file).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    inner = zlib.decompress(content[start:], -zlib.MAX_WBITS)
    place = inner.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(inner[:place] + before + inner[place:] + after) + packer.flush()
    file.write_bytes(content[:start] + packed)


def test_a_deflated_file_is_inflated_only_as_far_as_its_header_says(tmp_path: Path) -> None:
    deflated(ct_slice((0, 0, 0), 1), tmp_path / "behind", after=bytes(200 * MEGABYTE))
    assert slice_headers(tmp_path / "behind")[0].pixels is None
    private = struct.pack("<HH2sHI", 0x7FDF, 0x1010, b"OB", 0, 200 * MEGABYTE) + bytes(200 * MEGABYTE)
    deflated(ct_slice((0, 0, 0), 1), tmp_path / "before", before=private)
    with pytest.raises(BadSeries, match=r"before: it is damaged in its header: \(7FDF,1010\) has 200000000 bytes"):
        slice_headers(tmp_path / "before")


def many_items(count: int) -> bytes:
    return struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count


def nested(depth: int) -> bytes:
    opening = struct.pack("<HH2sHIHHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    return opening * depth


@pytest.mark.parametrize(
    ("sequence", "words"),
    [
        (many_items(1_200_000), "more than 1000000 elements"),
        (nested(30_000), "more than 32 deep"),
        (nested(30), r"\(0008,1140\) has an undefined length and never ends"),
    ],
)
def test_sequences_without_end_are_refused(tmp_path: Path, sequence: bytes, words: str) -> None:
    content = save(ct_slice((0, 0, 0), 1), tmp_path / "slice").read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    (tmp_path / "slice").write_bytes(content[:start] + sequence + content[start:])
    with pytest.raises(BadSeries, match=words):
        slice_headers(tmp_path / "slice")


def _layout(file: Path) -> Any:
    return layout_of(open_pixels(file).opened)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.replace(b"\xff\xc3", b"\xff\xc4", 1), "it has 0 frame headers"),
        (lambda d: d[:2] + d[d.find(b"\xff\xc3") :][:13] + d[2:], "it has 2 frame headers"),
        (lambda d: d + b"\xff\xda" * 101, "more than 100 scans"),
        (lambda d: b"\0" + d, "it is no JPEG picture"),
    ],
)
def test_what_would_lead_a_jpeg_decoder_astray_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    layout = _layout(save(ct_slice((0, 0, 0), 1), tmp_path / "slice"))
    data = bytes(imagecodecs.ljpeg_encode(np.zeros((ROWS, COLUMNS), np.uint16)))
    check_jpeg(data, layout)
    with pytest.raises(ValueError, match=words):
        check_jpeg(change(data), layout)


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (24, 1, "tiles, at most 1024"),
        (24, 0, "its tiles are empty"),
        (8, 60_000, "x 60000 pixels, its header says"),
    ],
)
def test_what_would_lead_a_jpeg_2000_decoder_astray_is_refused(
    tmp_path: Path, offset: int, value: int, words: str
) -> None:
    layout = _layout(save(ct_slice((0, 0, 0), 1, Rows=64, Columns=64, PixelData=bytes(8192)), tmp_path / "slice"))
    data = bytearray(
        imagecodecs.jpeg2k_encode(np.zeros((64, 64), np.uint16), codecformat="j2k", level=0, reversible=True)
    )
    check_jpeg_2000(bytes(data), layout)
    data[offset : offset + 4] = struct.pack(">I", value)
    if offset == 24:
        data[offset + 4 : offset + 8] = struct.pack(">I", value)
    with pytest.raises(ValueError, match=words):
        check_jpeg_2000(bytes(data), layout)


@pytest.mark.parametrize(("place", "value", "words"), [(6, 0xFF, "layers"), (10, 0, "code-blocks")])
def test_jpeg_2000_coding_styles_that_take_too_much_are_refused(
    tmp_path: Path, place: int, value: int, words: str
) -> None:
    layout = _layout(save(ct_slice((0, 0, 0), 1), tmp_path / "slice"))
    image = np.zeros((ROWS, COLUMNS), np.uint16)
    data = bytearray(imagecodecs.jpeg2k_encode(image, codecformat="j2k", level=0, reversible=True))
    style = data.find(b"\xff\x52")
    data[style + place : style + place + 2] = bytes((value, value))
    with pytest.raises(ValueError, match=words):
        check_jpeg_2000(bytes(data), layout)


def test_memory_that_there_is_not_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    file = save(compressed(ct_slice((0, 0, 0), 1), "1.2.840.10008.1.2.4.80"), tmp_path / "slice")
    opened = open_pixels(file)
    monkeypatch.setitem(sys.modules["carina.dicom.decode"].DECODERS, "1.2.840.10008.1.2.4.80", without_memory)
    with pytest.raises(BadSeries, match="slice: decoding it takes more memory than there is") as caught:
        opened.stored(None)
    assert caught.value.code == "series.memory"


@pytest.mark.parametrize("frames", [3, 12])
def test_an_enhanced_object_that_lost_frames_is_refused(tmp_path: Path, frames: int) -> None:
    dataset = enhanced(EVEN)
    dataset.PixelData = dataset.PixelData[: frames * ROWS * COLUMNS * 2 - 2]
    file = save(dataset, tmp_path / "a")
    headers = slice_headers(file)
    assert len(headers) == frames - 1
    assert all(one.pixels is not None and "it is truncated" in one.pixels.words for one in headers)


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    with measuring() as ended:
        yield ended


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("bomb-deflate", "series.truncated", "03: it is damaged in its header: (7FDF,1010) has 3670016000 bytes"),
        ("bomb-jpegls", "series.memory", "it has 20000 x 20000 pixels (Rows x Columns)"),
        ("bomb-number-of-frames", "series.truncated", "03: it is truncated: its pixel data has 8192 of"),
        ("rescale-nan/slope-nan", "series.no-hu", "Rescale Slope (0028,1053) is 'nan'"),
        ("rescale-nan/slope-inf", "series.no-hu", "Rescale Slope (0028,1053) is 'inf'"),
        ("rescale-nan/intercept-nan", "series.no-hu", "Rescale Intercept (0028,1052) is 'nan'"),
        ("rescale-nan/intercept-1e39", "series.no-hu", "Rescale Intercept (0028,1052) is '1e39'"),
        ("each-stops-at-unexpected/bad", "series.no-hu", "Rescale Intercept (0028,1052) is 'nan'"),
    ],
)
def test_claims_end_a_run_in_one_line_and_little_memory(
    measured: Measured, data: Path, tmp_path: Path, fault: str, code: str, words: str
) -> None:
    listed, peak = measured("series", str(data / "faults" / fault))
    assert listed.returncode == 0 and words in listed.stdout and peak < 500 * MEGABYTE
    done, peak = measured("run", str(data / "faults" / fault), "-o", str(tmp_path / "out"))
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1
    assert words in done.stderr and f"[{code}]" in done.stderr and peak < 500 * MEGABYTE


def test_padding_beyond_the_stored_bits_is_air(data: Path) -> None:
    folder = data / "faults" / "padding-beyond-bits-stored"
    raw = dcmread(folder / "0000.dcm" if (folder / "0000.dcm").exists() else next(folder.glob("0*")))
    padded = np.frombuffer(raw.PixelData, "<u2").reshape(raw.Rows, raw.Columns) == raw.PixelPaddingValue
    volume = read_source(series_of(folder, load_rules()))
    assert padded.any()
    position = float(raw.ImagePositionPatient[2])
    index = round((position - volume.grid.origin_mm[2]) / volume.grid.spacing_mm[0])
    assert (volume.hu[index][padded] == -1024).all() and volume.hu[index][~padded].max() > 0


def test_control_characters_of_the_fault_become_spaces(measured: Measured, data: Path) -> None:
    listed, _ = measured("series", str(data / "faults" / "control-characters"))
    (taken,) = [line for line in listed.stdout.splitlines() if line.startswith("taken")]
    assert len(taken.split("\t")) == 8 and taken.split("\t")[3] == "Thorax B C [31mred"


def test_uids_of_the_fault_are_replaced(data: Path) -> None:
    found = find_series(data / "faults" / "uid-path-traversal")
    assert len(found) == 3 and all(set(one.uid + one.study_uid) <= set("0123456789.") for one in found)
    assert all("is no UID" in one.warnings[0] for one in found)
