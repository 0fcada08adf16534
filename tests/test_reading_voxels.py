"""Reading voxels: transfer syntaxes, HU, enhanced objects, and masks put back on the source's slices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from carina.dicom.decode import DECODERS, open_pixels
from carina.dicom.find import find_series
from carina.dicom.geometry import mask_on_source
from carina.dicom.read import read_source
from carina.dicom.syntaxes import ENCAPSULATED, NATIVE
from carina.errors import BadSeries, ModelFailed
from carina.volume import Grid, Mask
from reading_slices import (
    COLUMNS,
    EVEN,
    PIXEL_MM,
    ROWS,
    assert_linear,
    enhanced,
    rebuilt,
    refusal,
    save,
    series_of,
    voxel_points,
    write_series,
)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_transfer_syntaxes(tmp_path: Path, syntax: UID) -> None:
    for file in write_series(tmp_path, EVEN):
        dataset = dcmread(file)
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        rebuilt(dataset).save_as(file, enforce_file_format=True)
    assert_linear(read_source(series_of(tmp_path)))


def test_every_syntax_that_is_known_has_its_decoder() -> None:
    assert set(DECODERS) == set(ENCAPSULATED)
    assert not set(ENCAPSULATED) & set(NATIVE)


@pytest.mark.parametrize("encapsulated", [True, False])
@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level (1.2.840.10008.1.2.4.100)"),
        ("1.2.840.10008.1.2.4.999", "1.2.840.10008.1.2.4.999"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("JPEG lossless", "'JPEG lossless'"),
        ("9" * 64, "9" * 64),
    ],
)
def test_an_unknown_transfer_syntax_is_refused_by_name(
    tmp_path: Path, syntax: str, words: str, *, encapsulated: bool
) -> None:
    """Nobody can say whether what is there is whole: it is not called truncated."""
    for file in write_series(tmp_path, EVEN):
        dataset = dcmread(file)
        if encapsulated:
            dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
            dataset.PixelData = encapsulate([b"\x00\x00\x01\xb3" + bytes(60)])
            dataset["PixelData"].VR = "OB"
        dataset.save_as(file, enforce_file_format=True)
        set_syntax(file, syntax.encode())
    (found,) = find_series(tmp_path)
    said = f"its transfer syntax is {words}, which Carina does not read (send it uncompressed or as JPEG 2000 Lossless)"
    assert found.reason.endswith(f": {said}.")
    assert found.error is not None and found.error.code == "series.transfer-syntax"
    with pytest.raises(BadSeries, match=re.escape(said)):
        open_pixels(next(tmp_path.iterdir()))


def set_syntax(file: Path, syntax: bytes) -> None:
    """Overwrite a file's Transfer Syntax UID with any bytes."""
    content = file.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    size = int.from_bytes(content[start + 6 : start + 8], "little")
    new = syntax + b"\0" * (len(syntax) % 2)
    content = content[: start + 6] + len(new).to_bytes(2, "little") + new + content[start + 8 + size :]
    group = content.index(b"\x02\x00\x00\x00UL") + 8
    length = int.from_bytes(content[group : group + 4], "little") + len(new) - size
    file.write_bytes(content[:group] + length.to_bytes(4, "little") + content[group + 4 :])


@pytest.mark.parametrize(
    ("stored", "changes", "hu"),
    [
        (np.full((ROWS, COLUMNS), 100, "<u2"), {"RescaleSlope": 0.5, "RescaleIntercept": -10.25}, 40),
        (np.full((ROWS, COLUMNS), -300, "<i2"), {"PixelRepresentation": 1, "RescaleIntercept": 0}, -300),
        (np.full((ROWS, COLUMNS), 0xF7D0, "<u2"), {"BitsStored": 12, "HighBit": 11}, 2000 - 1024),
        (np.full((ROWS, COLUMNS), 0x7D0F, "<u2"), {"BitsStored": 12, "HighBit": 15}, 2000 - 1024),
        (
            np.full((ROWS, COLUMNS), 0x0ED4, "<u2"),
            {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "RescaleIntercept": 0},
            -300,
        ),
        (np.full((ROWS, COLUMNS), 60000, "<u2"), {}, 32767),
        (np.full((ROWS, COLUMNS), -2000, "<i2"), {"PixelRepresentation": 1}, -1024),
        (np.full((ROWS, COLUMNS), 5000, "<u2"), {"PixelPaddingValue": 5000}, -1024),
        (
            np.full((ROWS, COLUMNS), 0xF830, "<u2"),  # cut to 12 bits it is 2096
            {"BitsStored": 12, "HighBit": 11, "PixelPaddingValue": 0xF830},
            -1024,
        ),
        (np.full((ROWS, COLUMNS), 77, "u1"), {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, 77 - 1024),
    ],
)
def test_stored_values_become_hu(tmp_path: Path, stored: np.ndarray, changes: dict[str, Any], hu: int) -> None:
    write_series(tmp_path, EVEN, PixelData=stored.tobytes(), **changes)
    volume = read_source(series_of(tmp_path))
    assert volume.hu.min() == volume.hu.max() == hu


@pytest.mark.parametrize("value", [924, 1024, 1100, 2000])
def test_padding_that_tissue_shares_its_value_with_must_stand_out(tmp_path: Path, value: int) -> None:
    """A Pixel Padding Value of 0 HU, say: soft tissue is no air, and the corners that are filled with it are."""
    tissue = value + np.random.default_rng(value).integers(-5, 6, (ROWS, COLUMNS))
    filled = tissue.copy()
    filled[: ROWS // 2] = value
    for name, stored in (("tissue", tissue), ("filled", filled)):
        write_series(tmp_path / name, EVEN, PixelData=stored.astype("<u2").tobytes(), PixelPaddingValue=value)
    assert np.array_equal(read_source(series_of(tmp_path / "tissue")).hu[0], tissue - 1024)
    assert np.all(read_source(series_of(tmp_path / "filled")).hu[:, : ROWS // 2] == -1024)


def test_rescale_is_that_of_each_slice(tmp_path: Path) -> None:
    for k, height in enumerate(EVEN):
        write_series(tmp_path, [height], prefix=str(k), RescaleSlope=1 + k, PixelData=bytes([10, 0]) * (ROWS * COLUMNS))
    volume = read_source(series_of(tmp_path))
    assert volume.hu[:, 0, 0].tolist() == [10 * (1 + k) - 1024 for k in range(12)]
    assert "known in steps of 12 only" in volume.warnings[-1]


def test_a_mask_on_even_slices_is_put_back_unchanged(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    series = series_of(tmp_path)
    labels = np.random.default_rng(0).integers(0, 3, (12, ROWS, COLUMNS)).astype(np.uint8)
    mask = Mask(labels=labels, grid=read_source(series).grid, names={1: "a", 2: "b"}, uid=series.uid)
    assert np.array_equal(mask_on_source(mask, series), labels)


def test_a_mask_on_tilted_slices_is_put_back_where_it_lies(tmp_path: Path) -> None:
    angle = np.radians(18.0)
    write_series(tmp_path, EVEN, orientation=(1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle))))
    series = series_of(tmp_path)
    grid = read_source(series).grid
    edge = 114.3
    labels = (voxel_points(grid)[..., 2] > edge).astype(np.uint8)
    back = mask_on_source(Mask(labels=labels, grid=grid, names={1: "above"}, uid=series.uid), series)
    rows = np.arange(ROWS)[None, :, None] * PIXEL_MM[0] * np.sin(angle)
    heights = np.array([i.position_mm[2] for i in series.instances])[:, None, None] + rows
    heights = np.broadcast_to(heights, back.shape)
    sure = np.abs(heights - edge) > PIXEL_MM[0]
    assert np.array_equal(back[sure], (heights > edge)[sure].astype(np.uint8))


def test_a_turned_mask_is_not_put_back(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    series = series_of(tmp_path)
    grid = Grid(shape=(2, 2, 2), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), axes=((0, 0, 1), (1, 0, 0), (0, 1, 0)))
    mask = Mask(labels=np.zeros((2, 2, 2), np.uint8), grid=grid, names={}, uid="x")
    with pytest.raises(ModelFailed, match="turned against the source slices"):
        mask_on_source(mask, series)


def test_enhanced_multi_frame_ct(tmp_path: Path) -> None:
    save(enhanced(EVEN[::2] + EVEN[1::2]), tmp_path / "enhanced")
    series = series_of(tmp_path)
    assert [instance.frame for instance in series.instances] == [1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12]
    assert len({instance.sop_instance_uid for instance in series.instances}) == 1
    assert_linear(read_source(series))


def test_enhanced_ct_with_other_units_or_a_gap(tmp_path: Path) -> None:
    save(enhanced(EVEN, RescaleType="US"), tmp_path / "units" / "a")
    assert "a frame 1: Rescale Type is US, expected HU" in refusal(tmp_path / "units").message
    save(enhanced([*EVEN, 99.0]), tmp_path / "gap" / "a")
    assert "71.50 mm between a frame 12 (at 127.50 mm) and a frame 13" in refusal(tmp_path / "gap").message


def test_progress_counts_every_slice(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    calls: list[tuple[int, int]] = []
    read_source(series_of(tmp_path), lambda done, of: calls.append((done, of)), threads=2)
    assert calls == [(k + 1, 12) for k in range(12)]
