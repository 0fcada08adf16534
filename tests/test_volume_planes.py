"""Slices read alone: the same as those of the whole volume, and an error in words where the file was cut short."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carina.errors import BadSeries
from carina.volume import Grid, Mask, Volume
from carina.volume.files import read_mask, read_volume, write_mask, write_volume
from carina.volume.planes import STRIPE, FileVolume, MaskBits, open_volume, read_mask_bits
from viewer_runs import POSES, posed

SHAPE = (13, 11, 2 * STRIPE + 5)
HEADER = """ObjectType = Image
NDims = 3
CompressedData = False
BinaryData = {binary}
BinaryDataByteOrderMSB = {big}
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 1 2 3
ElementSpacing = 1 1 2
DimSize = {size}
ElementType = {kind}
ElementDataFile = ct.raw
"""


def grid(shape: tuple[int, int, int] = SHAPE) -> Grid:
    return Grid(shape=shape, spacing_mm=(2.0, 1.0, 1.0), origin_mm=(1.0, 2.0, 3.0))


def chest(shape: tuple[int, int, int] = SHAPE) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    return np.random.default_rng(5).integers(-1100, 1500, shape).astype(np.int16)


def stored(folder: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], kind: str) -> Path:
    """A MetaImage of any type, written by hand."""
    size = " ".join(map(str, values.shape[::-1]))
    header = HEADER.format(size=size, kind=kind, big=values.dtype.byteorder == ">", binary=True)
    (folder / "ct.mhd").write_text(header)
    (folder / "ct.raw").write_bytes(values.tobytes())
    return folder / "ct.mhd"


def assert_same_planes(
    found: FileVolume | MaskBits | Volume, whole: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    assert found.grid.shape == whole.shape
    for axis, count in enumerate(whole.shape):
        for index in {0, count // 3, count // 2, count - 1}:
            plane = found.plane(axis, index)
            assert plane.dtype == whole.dtype
            np.testing.assert_array_equal(plane, whole.take(index, axis))


@pytest.mark.parametrize("pose", [*POSES, "oblique"])
def test_a_slice_of_a_run_is_that_of_the_whole_in_every_pose(pose: str, tmp_path: Path) -> None:
    phantom = posed(pose, (30, 48, 52))
    write_volume(phantom.volume, tmp_path / "ct.mhd")
    found = open_volume(tmp_path / "ct.mhd")
    assert isinstance(found, FileVolume)
    assert found.grid == read_volume(tmp_path / "ct.mhd").grid
    assert_same_planes(found, phantom.volume.hu)
    for mask in (phantom.lung, phantom.lesion):
        write_mask(mask, tmp_path / "mask.mhd")
        assert_same_planes(read_mask_bits(tmp_path / "mask.mhd"), mask.labels > 0)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("MET_SHORT", "<i2"), ("MET_SHORT", ">i2"), ("MET_LONG_LONG", "<i8"), ("MET_INT", ">i4"), ("MET_DOUBLE", "<f8")],
)
def test_a_slice_is_that_of_the_whole_whatever_is_stored(kind: str, dtype: str, tmp_path: Path) -> None:
    values = chest().astype(dtype)
    if values.dtype.kind == "f":
        values[3, 4, :] = np.nan
        values[:, 5, 6] += 0.4
    path = stored(tmp_path, values, kind)
    assert_same_planes(open_volume(path), read_volume(path).hu)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bits")


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40)), seed=st.integers(0, 2**32 - 1))
def test_bits_of_any_shape_give_back_what_is_marked(folder: Path, shape: tuple[int, int, int], seed: int) -> None:
    path = folder / "mask.mha"
    labels = np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)
    write_mask(Mask(labels=labels, grid=grid(shape), names={1: "left", 2: "right"}, uid="1"), path)
    assert_same_planes(read_mask_bits(path), labels > 0)


def test_bits_of_numbers_in_text_give_back_what_is_marked(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, 2, (19, 61, 67)).astype(np.uint8)
    header = HEADER.format(size="67 61 19", kind="MET_UCHAR", big=False, binary=False)
    (tmp_path / "mask.mhd").write_text(header)
    (tmp_path / "ct.raw").write_text(" ".join(f"{label:03d}" for label in labels.ravel()))
    assert_same_planes(read_mask_bits(tmp_path / "mask.mhd"), labels > 0)


def test_many_labels_are_all_named_and_marked(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels.reshape(-1)[:200] = np.arange(200)
    few = np.zeros(SHAPE, np.uint8)
    few[2, 3, 4:7] = 3, 1, 5
    for array, expected in ((labels, set(range(1, 200))), (few, {1, 3, 5})):
        write_mask(
            Mask(labels=array, grid=grid(), names=dict.fromkeys(expected, "any"), uid="1"), tmp_path / "mask.mhd"
        )
        assert set(read_mask(tmp_path / "mask.mhd").names) == expected
        assert_same_planes(read_mask_bits(tmp_path / "mask.mhd"), array > 0)


def test_a_packed_ct_is_read_as_a_whole(tmp_path: Path) -> None:
    volume = Volume(hu=chest(), grid=grid(), uid="ct")
    write_volume(volume, tmp_path / "ct.mhd", compress=True)
    found = open_volume(tmp_path / "ct.mhd")
    assert isinstance(found, Volume)
    assert_same_planes(found, volume.hu.clip(-1024))


def test_a_file_that_is_cut_short_is_told_of_and_what_is_left_of_it_is_still_shown(tmp_path: Path) -> None:
    volume = Volume(hu=chest().clip(-1024), grid=grid(), uid="ct")
    write_volume(volume, tmp_path / "ct.mhd")
    found = open_volume(tmp_path / "ct.mhd")
    os.truncate(tmp_path / "ct.raw", volume.hu[:5].nbytes)
    np.testing.assert_array_equal(found.plane(0, 4), volume.hu[4])
    for axis, index in ((0, 5), (0, 12), (1, 0), (2, 3)):
        with pytest.raises(BadSeries, match=r"^ct\.raw: is cut short or damaged; copy it again\.$"):
            found.plane(axis, index)
    with pytest.raises(BadSeries, match=r"^ct\.raw: is cut short, or its header is wrong"):
        open_volume(tmp_path / "ct.mhd")
    (tmp_path / "ct.raw").unlink()
    with pytest.raises(BadSeries, match=r"ct\.raw: no such file"):
        found.plane(0, 4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_what_is_no_hu_is_refused(axis: int, tmp_path: Path) -> None:
    path = stored(tmp_path, np.full(SHAPE, 1e6, "<f4"), "MET_FLOAT")
    with pytest.raises(BadSeries, match="values run from 1e\\+06 to 1e\\+06"):
        open_volume(path).plane(axis, 2)
    with pytest.raises(BadSeries, match="8-bit values can't be HU"):
        open_volume(stored(tmp_path, np.zeros(SHAPE, np.uint8), "MET_UCHAR"))


def test_a_mask_that_holds_no_labels_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, np.full(SHAPE, 0.5, "<f4"), "MET_FLOAT")
    with pytest.raises(BadSeries, match="no whole numbers from 0 to 255"):
        read_mask_bits(path)


def test_slices_that_are_asked_for_are_not_changed_by_those_that_follow(tmp_path: Path) -> None:
    volume = Volume(hu=chest().clip(-1024), grid=grid(), uid="ct")
    write_volume(volume, tmp_path / "ct.mhd")
    found = open_volume(tmp_path / "ct.mhd")
    planes = [found.plane(2, index) for index in (0, STRIPE - 1, STRIPE, 2 * STRIPE + 4)]
    for plane, index in zip(planes, (0, STRIPE - 1, STRIPE, 2 * STRIPE + 4), strict=True):
        np.testing.assert_array_equal(plane, volume.hu[:, :, index])
