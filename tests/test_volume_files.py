"""Volume files: the same voxels at the same place, whatever the format; what is no CT volume is refused."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from carina.errors import BadConfig, BadSeries
from carina.volume import Grid, Mask, Volume
from carina.volume.files import (
    SUFFIXES,
    read_grid,
    read_mask,
    read_volume,
    volume_name,
    write_mask,
    write_volume,
)

C, S = np.cos(0.3), np.sin(0.3)
OBLIQUE = Grid(
    shape=(4, 6, 8),
    spacing_mm=(2.5, 0.7, 0.8),
    origin_mm=(-12.5, 33.25, -400.0),
    axes=((0.0, -S, C), (0.0, C, S), (1.0, 0.0, 0.0)),
)


def chest(grid: Grid = OBLIQUE) -> Volume:
    hu = np.random.default_rng(1).integers(-1024, 3000, grid.shape).astype(np.int16)
    return Volume(hu=hu, grid=grid, uid="1.2.3")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "new" / f"1.2.3{suffix}"
    write_volume(chest(), file)
    back = read_volume(file)
    assert np.array_equal(back.hu, chest().hu)
    assert back.grid.same_place(OBLIQUE, tolerance_mm=1e-3) and back.uid == "1.2.3"
    assert read_grid(file)[0].same_place(OBLIQUE, tolerance_mm=1e-3)
    assert not [left for left in file.parent.iterdir() if left.name.startswith(".")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mask_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    labels = np.random.default_rng(2).integers(0, 3, OBLIQUE.shape).astype(np.uint8)
    mask = Mask(labels=labels, grid=OBLIQUE, names={1: "lung", 2: "lesion"}, uid="1.2.3")
    write_mask(mask, tmp_path / f"m{suffix}")
    back = read_mask(tmp_path / f"m{suffix}", {1: "lung"})
    assert np.array_equal(back.labels, labels)
    assert back.names == {1: "lung", 2: "label 2"}


def test_a_compressed_mask_is_small(tmp_path: Path) -> None:
    grid = Grid(shape=(40, 64, 64), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0))
    mask = Mask(labels=np.zeros(grid.shape, np.uint8), grid=grid, names={}, uid="m")
    write_mask(mask, tmp_path / "m.mhd")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4000


def test_nifti_holds_the_other_sign_of_x_and_y(tmp_path: Path) -> None:
    write_volume(chest(), tmp_path / "a.nii.gz")
    header = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[:348]
    assert struct.unpack_from("<3f", header, 268) == (12.5, -33.25, -400.0)


def test_metaimage_says_lps(tmp_path: Path) -> None:
    write_volume(chest(), tmp_path / "a.mhd")
    lines = (line.split(" = ") for line in (tmp_path / "a.mhd").read_text().splitlines())
    header = dict(lines)
    assert [float(v) for v in header["Offset"].split()] == [-12.5, 33.25, -400.0]
    assert np.allclose([float(v) for v in header["ElementSpacing"].split()], [0.8, 0.7, 2.5])
    assert np.allclose([float(v) for v in header["TransformMatrix"].split()], [1, 0, 0, 0, C, S, 0, -S, C])
    assert header["ElementDataFile"] == "a.raw"


def image(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(array, isVector=False)


def test_floats_are_rounded_and_clipped(tmp_path: Path) -> None:
    sitk.WriteImage(image(np.array([[[-3000.0, -700.4, 50.6]]], np.float32)), str(tmp_path / "f.nii.gz"))
    assert read_volume(tmp_path / "f.nii.gz").hu.tolist() == [[[-1024, -700, 51]]]


def filled(value: float, dtype: type[np.generic]) -> np.ndarray:
    return np.full((10, 64, 64), value, dtype)


@pytest.mark.parametrize(
    ("array", "code", "words"),
    [
        (filled(0, np.uint8), "file.no-hu", "8-bit values can't be HU"),
        (filled(1, np.float32), "file.no-hu", "values run from 1 to 1, as in a mask"),
        (filled(900, np.int16), "file.no-hu", "values run from 900 to 900; a chest CT in HU has air near -1000"),
        (filled(np.nan, np.float32), "file.no-hu", "nothing lies above -600"),
        (filled(-np.inf, np.float32), "file.no-hu", "values run from -inf to -inf; a chest CT in HU reaches from"),
        (filled(1e6, np.float64), "file.no-hu", "values run from 1e+06 to 1e+06"),
        (np.zeros((2, 3, 4, 5), np.int16), "file.not-3d", "5 x 4 x 3 x 2 voxels, expected one 3D volume"),
        (np.zeros((4, 5), np.int16), "file.not-3d", "5 x 4 voxels"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_what_is_no_ct_volume_is_refused(tmp_path: Path, suffix: str, array: np.ndarray, code: str, words: str) -> None:
    picture = image(array)
    if array.ndim == 4 and suffix == ".nrrd":
        picture = sitk.JoinSeries([picture[..., k] for k in range(2)])
    sitk.WriteImage(picture, str(tmp_path / f"x{suffix}"))
    with pytest.raises(BadSeries, match=re.escape(words)) as caught:
        read_volume(tmp_path / f"x{suffix}")
    assert caught.value.code == code


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(image(np.full((1, 3, 4, 5), -700, np.int16)), str(tmp_path / f"x{suffix}"))
    assert read_volume(tmp_path / f"x{suffix}").grid.shape == (3, 4, 5)


def test_nan_is_padding_and_said(tmp_path: Path) -> None:
    sitk.WriteImage(image(np.array([[[np.nan, -700.4, 50.6]]], np.float32)), str(tmp_path / "n.nrrd"))
    volume = read_volume(tmp_path / "n.nrrd")
    assert volume.hu.tolist() == [[[-1024, -700, 51]]]
    assert volume.warnings == ("n.nrrd: 1 voxels are NaN (no number) and taken for padding, -1024 HU.",)


def test_values_of_any_type_are_read(tmp_path: Path) -> None:
    for dtype in (np.int16, np.int32, np.int64, np.float32, np.float64):
        sitk.WriteImage(image(np.array([[[-3024, -700, 30000]]], dtype)), str(tmp_path / "t.nrrd"))
        assert read_volume(tmp_path / "t.nrrd").hu.tolist() == [[[-1024, -700, 30000]]], dtype
        assert read_grid(tmp_path / "t.nrrd")[1].startswith(f"{8 * np.dtype(dtype).itemsize}-bit")


def test_sheared_axes_are_refused(tmp_path: Path) -> None:
    write_volume(chest(), tmp_path / "s.mhd")
    text = (tmp_path / "s.mhd").read_text().splitlines()
    lines = [
        "TransformMatrix = 1 0 0 0.2 0.98 0 0 0 1" if line.startswith("TransformMatrix") else line for line in text
    ]
    (tmp_path / "s.mhd").write_text("\n".join(lines) + "\n")
    with pytest.raises(BadSeries, match=r"s\.mhd: its axes are sheared"):
        read_volume(tmp_path / "s.mhd")


def test_a_file_cut_short_absent_or_unknown_is_named(tmp_path: Path) -> None:
    write_volume(chest(), tmp_path / "c.mha")
    (tmp_path / "c.mha").write_bytes((tmp_path / "c.mha").read_bytes()[:-100])
    with pytest.raises(BadSeries, match=r"c\.mha: is cut short, or its header is wrong: 384 bytes"):
        read_volume(tmp_path / "c.mha")
    with pytest.raises(BadSeries, match="no such file"):
        read_volume(tmp_path / "absent.nii")
    with pytest.raises(BadSeries, match=r"unknown suffix, expected one of \.mhd"):
        read_volume(tmp_path / "c.jpg")


def test_labels_must_be_whole_and_small(tmp_path: Path) -> None:
    sitk.WriteImage(image(np.full((2, 2, 2), 0.5, np.float32)), str(tmp_path / "p.nrrd"))
    with pytest.raises(BadSeries, match="no whole numbers from 0 to 255"):
        read_mask(tmp_path / "p.nrrd")


def test_what_can_not_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadConfig, match="can't be written") as caught:
        write_volume(chest(), tmp_path / "file" / "v.mhd")
    assert caught.value.code == "output.unwritable"
    with pytest.raises(BadConfig, match="unknown suffix"):
        write_volume(chest(), tmp_path / "v.png")
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_names_lose_their_whole_suffix() -> None:
    assert volume_name(Path("1.2.840.nii.gz")) == "1.2.840"
    assert volume_name(Path("1.2.840.MHD")) == "1.2.840"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_file_cut_short_is_never_read_as_if_it_were_whole(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"half{suffix}"
    write_volume(chest(), file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with pytest.raises(BadSeries, match=r"half.*cut short"):
        read_volume(file)


def test_a_file_packed_in_parts_is_read(tmp_path: Path) -> None:
    write_volume(chest(), tmp_path / "whole.nii")
    content = (tmp_path / "whole.nii").read_bytes()
    (tmp_path / "parts.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_volume(tmp_path / "parts.nii.gz").hu, chest().hu)
