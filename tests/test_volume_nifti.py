"""NIfTI as others write it: the place and value that nibabel and ITK agree on, else a warning or a refusal."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from carina.errors import BadSeries
from carina.volume import Grid, Volume
from carina.volume.files import read_volume, write_volume
from carina.volume.nifti import FIRST, SECOND
from nifti_headers import (
    MIRRORED,
    ONLY,
    SFORM,
    SIZE,
    STORED,
    by_carina,
    by_itk,
    by_nibabel,
    far,
    header,
    readers,
    write,
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The other readers speak to the terminal."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    sitk.ProcessObject.SetGlobalWarningDisplay(before)


ALIKE: Mapping[str, dict[str, Any]] = {
    "by its qform": {},
    "by its sform": ONLY | SFORM,
    "by both": SFORM,
    "left-handed (qfac)": {"pixdim": [-1, 0.7, 0.8, 2.5, 0, 0, 0, 0]},
    "qfac 0": {"pixdim": [0, 0.7, 0.8, 2.5, 0, 0, 0, 0]},
    "oblique": {"quatern": [0.1, 0.2, 0.9]},
    "scaled": {"scl_slope": 2, "scl_inter": -1024},
    "shifted": {"scl_slope": 1, "scl_inter": -100.5},
    "not scaled (slope 0)": {"scl_slope": 0},
    "not scaled (NaN)": {"scl_slope": np.nan, "scl_inter": np.nan},
    "4D with one volume": {"dim": [4, *SIZE, 1, 1, 1, 1]},
    "5D with one volume": {"dim": [5, *SIZE, 1, 1, 1, 1]},
    "no time": {"dim": [3, *SIZE, 0, 0, 0, 0]},
    "unit not told": {"xyzt_units": 0},
    "bitpix wrong": {"bitpix": 8},
}


@pytest.mark.parametrize("kind", ALIKE)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", [FIRST, SECOND], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_two_readers_agree_on_is_read(
    tmp_path: Path, kind: str, order: Any, layout: np.dtype[Any], suffix: str
) -> None:
    fields = header(layout, **ALIKE[kind])
    swapped = fields.astype(layout.newbyteorder(order))
    file = write(tmp_path / f"a{suffix}", swapped, STORED.astype(STORED.dtype.newbyteorder(order)).tobytes())
    affine, values = by_carina(file)
    for other in readers(layout):
        wanted_affine, wanted = other(file)
        assert far(affine, wanted_affine) < 1e-3, other.__name__
        assert np.allclose(values, wanted, atol=1e-3), other.__name__
    assert read_volume(file).warnings == ()


@pytest.mark.parametrize(
    ("code", "dtype"),
    [
        (2, "u1"),
        (4, "i2"),
        (8, "i4"),
        (16, "f4"),
        (64, "f8"),
        (256, "i1"),
        (512, "u2"),
        (768, "u4"),
        (1024, "i8"),
        (1280, "u8"),
    ],
)
def test_every_type_of_number_is_read(tmp_path: Path, code: int, dtype: str) -> None:
    stored = np.arange(120).astype(dtype)
    fields = header(datatype=code, bitpix=8 * stored.itemsize, scl_slope=1, scl_inter=-1024)
    values = by_carina(write(tmp_path / "a.nii", fields, stored.tobytes()))[1]
    assert np.array_equal(values, by_nibabel(tmp_path / "a.nii")[1])
    assert np.array_equal(values, by_itk(tmp_path / "a.nii")[1])


REFUSED: Mapping[str, tuple[dict[str, Any], str, str]] = {
    "no orientation": (ONLY, "file.orientation", r"neither qform nor sform is set \(both codes are 0\)"),
    "codes that no standard knows": ({"qform_code": 99, "sform_code": -1}, "file.orientation", "neither qform nor"),
    "left and right contradict": (MIRRORED, "file.orientation", "which way the axes run: qform says LPS, sform RPS"),
    "left and right contradict (MNI)": (MIRRORED | {"sform_code": 4}, "file.orientation", "contradict each other"),
    "no slice distance": ({"pixdim": [1, 0.7, 0.8, 0, 0, 0, 0, 0]}, "file.spacing", r"voxels of 0.7 x 0.8 x 0 mm"),
    "NaN as pixel size": ({"pixdim": [1, np.nan, 0.8, 2, 0, 0, 0, 0]}, "file.spacing", "voxels of nan x 0.8 x 2 mm"),
    "no slice distance, but an sform": (
        ONLY | SFORM | {"pixdim": [1, 0.7, 0.8, 0, 0, 0, 0, 0]},
        "file.spacing",
        "voxels of 0.7 x 0.8 x 0 by pixdim but of 0.7 x 0.8 x 2.5 by the sform",
    ),
    "pixdim never set": (ONLY | SFORM | {"pixdim": [1] * 8}, "file.spacing", "voxels of 1 x 1 x 1 by pixdim"),
    "a negative pixdim": ({"pixdim": [1, -0.7, 0.8, 2.5, 0, 0, 0, 0]}, "file.orientation", "pixdim is negative"),
    "metres without saying so": (
        {"pixdim": [1, 7e-4, 8e-4, 2.5e-3, 0, 0, 0, 0], "xyzt_units": 0},
        "file.spacing",
        r"voxels of 0.0025 x 0.0008 x 0.0007 mm \(z, y, x\), expected 0.05 to 30 mm",
    ),
    "sheared": (
        ONLY | {"sform_code": 1, "srow": [[-0.7, 0.1, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30]]},
        "file.sheared",
        "its axes are sheared",
    ),
    "an sform of zeros": (ONLY | {"sform_code": 1}, "file.orientation", "its qform or sform is damaged"),
    "NaN in the quaternion": ({"quatern": [np.nan, 0, 0]}, "file.orientation", "its qform or sform is damaged"),
    "no rotation": ({"quatern": [1, 1, 0]}, "file.orientation", "its qform or sform is damaged"),
    "NaN as place": ({"qoffset": [np.nan, 0, 0]}, "file.orientation", "its qform or sform is damaged"),
    "two volumes": ({"dim": [4, *SIZE, 2, 1, 1, 1]}, "file.not-3d", "holds 4 x 5 x 6 x 2 voxels, expected one 3D"),
    "a vector per voxel": ({"dim": [5, *SIZE, 1, 3, 1, 1]}, "file.not-3d", "holds 4 x 5 x 6 x 1 x 3 voxels"),
    "a slice": ({"dim": [2, 4, 30, 1, 1, 1, 1, 1]}, "file.not-3d", "holds 4 x 30 voxels"),
    "no slices": ({"dim": [3, 4, 5, 0, 1, 1, 1, 1]}, "file.not-3d", "holds 4 x 5 x 0 voxels"),
    "fewer than none": ({"dim": [3, 4, 5, -6, 1, 1, 1, 1]}, "file.not-3d", "holds 4 x 5 x -6 voxels"),
    "no dimensions": ({"dim": [0] * 8}, "file.unreadable", r"claims 0 dimensions \(dim\[0\]\)"),
    "colours": ({"datatype": 128, "bitpix": 24}, "file.not-3d", "voxels with 3 values each"),
    "complex numbers": ({"datatype": 32, "bitpix": 64}, "file.not-3d", "voxels with 2 values each"),
    "long doubles": ({"datatype": 1536, "bitpix": 128}, "file.unreadable", r"of type 1536 \(datatype\)"),
    "a slope without intercept": ({"scl_inter": np.nan}, "file.no-hu", "scl_slope is 1 but scl_inter is nan"),
    "voxels within the header": ({"vox_offset": 0}, "file.unreadable", r"begin at byte 0 \(vox_offset\), expected 352"),
    "voxels nowhere": ({"vox_offset": np.nan}, "file.unreadable", r"begin at byte nan \(vox_offset\)"),
    "voxels at infinity": ({"vox_offset": np.inf}, "file.unreadable", r"begin at byte inf \(vox_offset\)"),
    "voxels between bytes": ({"vox_offset": 352.5}, "file.unreadable", r"begin at byte 352.5 \(vox_offset\)"),
    "voxels behind the end": ({"vox_offset": 4000}, "file.truncated", "240 bytes of voxels can't be in 592 bytes"),
    "Analyze 7.5": ({"magic": b""}, "file.orientation", "is an Analyze 7.5 file, which does not say where left"),
    "another magic": ({"magic": b"abc"}, "file.unreadable", "its magic is b'abc', expected NIfTI's"),
    "another header": ({"sizeof_hdr": 999}, "file.unreadable", "is no NIfTI file"),
    "more slices than it holds": ({"dim": [3, 4, 5, 7, 1, 1, 1, 1]}, "file.truncated", "280 bytes of voxels can't be"),
    "fewer slices than it holds": ({"dim": [3, 4, 5, 5, 1, 1, 1, 1]}, "file.leftover", "at least a slice more"),
    "a voxel of 8 bits as CT": (
        {"datatype": 2, "scl_slope": 8, "dim": [3, 4, 10, 6, 1, 1, 1, 1]},
        "file.no-hu",
        "8-bit",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nobody_can_know_is_refused(tmp_path: Path, kind: str) -> None:
    changes, code, words = REFUSED[kind]
    with pytest.raises(BadSeries, match=words) as caught:
        read_volume(write(tmp_path / "a.nii", header(**changes)))
    assert caught.value.code == code and caught.value.message.startswith("a.nii: ")


TURNED = [
    [-0.7 * np.cos(0.1), 0.8 * np.sin(0.1), 0, 13],
    [-0.7 * np.sin(0.1), -0.8 * np.cos(0.1), 0, 20],
    [0, 0, 2.5, 30],
]
WARNED: Mapping[str, tuple[dict[str, Any], Any, str]] = {
    "turned, scanner": ({"sform_code": 1, "srow": TURNED}, by_nibabel, r"place its voxels up to \d.\d\d mm apart"),
    "turned, aligned": ({"sform_code": 2, "srow": TURNED}, by_itk, r"place its voxels up to \d.\d\d mm apart"),
    "sheared to an atlas": (
        {"sform_code": 4, "srow": [[-0.7, 0.1, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 30]]},
        by_itk,
        "the scanner's is used",
    ),
    "an sform of zeros": ({"sform_code": 1}, by_itk, "its sform is damaged; the other is used"),
    "no rotation, but an sform": (
        SFORM | {"quatern": [1, 1, 0]},
        by_nibabel,
        "its qform is damaged; the other is used",
    ),
    "rounded pixdim": (
        SFORM | {"pixdim": [1, 0.7, 0.8, 2.51, 0, 0, 0, 0]},
        by_nibabel,
        "by pixdim but of 0.7 x 0.8 x 2.5 by the sform, which is used",
    ),
    "a negative pixdim, but an sform": (
        ONLY | SFORM | {"pixdim": [1, -0.7, 0.8, 2.5, 0, 0, 0, 0]},
        by_nibabel,
        "voxels of -0.7 x 0.8 x 2.5 by pixdim",
    ),
    "metres": (
        {"xyzt_units": 1, "pixdim": [1, 7e-4, 8e-4, 2.5e-3, 0, 0, 0, 0], "qoffset": [0.01, 0.02, 0.03]},
        by_itk,
        "its lengths are given in metres",
    ),
    "micrometres": (
        {"xyzt_units": 3, "pixdim": [1, 700, 800, 2500, 0, 0, 0, 0], "qoffset": [1e4, 2e4, 3e4]},
        by_itk,
        "its lengths are given in micrometres",
    ),
    "an unknown unit": ({"xyzt_units": 5}, by_itk, r"its unit of length is unknown \(xyzt_units 5\)"),
    "an intercept without slope": (
        {"scl_slope": 0, "scl_inter": -1024},
        by_nibabel,
        "scl_inter is -1024 but scl_slope",
    ),
    "an intercept with slope NaN": ({"scl_slope": np.nan, "scl_inter": 5}, by_nibabel, "scl_inter is 5 but scl_slope"),
}


@pytest.mark.parametrize("kind", WARNED)
def test_what_readers_disagree_on_is_said(tmp_path: Path, kind: str) -> None:
    changes, reader, words = WARNED[kind]
    file = write(tmp_path / "a.nii", header(**changes))
    affine, values = by_carina(file)
    wanted_affine, wanted = reader(file)
    assert far(affine, wanted_affine) < 1e-3 and np.array_equal(values, wanted)
    (warning,) = read_volume(file).warnings
    assert re.search(words, warning), warning


def test_a_few_bytes_too_many_are_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.nii", data=STORED.tobytes() + bytes(7))
    assert read_volume(file).warnings == ("a.nii: 7 bytes after its voxels are left out.",)


def test_a_geometry_that_nobody_set_is_said(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.full((130, 4, 4), -700, np.int16), np.eye(4))
    nibabel.save(image, tmp_path / "eye.nii.gz")
    (warning,) = read_volume(tmp_path / "eye.nii.gz").warnings
    assert "voxels of exactly 1 mm at the origin: its geometry may never have been set" in warning


@st.composite
def geometries(draw: st.DrawFn) -> dict[str, Any]:
    """Headers as tools write them, and as they do not: forms that agree, nearly agree or don't, any unit and sign."""
    rotation = Rotation.from_rotvec([draw(st.floats(-3, 3)) for _ in range(3)])
    lengths = np.array([draw(st.floats(0.3, 6)) for _ in range(3)], dtype=np.float32)
    offset = [draw(st.floats(-500, 500)) for _ in range(3)]
    qfac = draw(st.sampled_from([1, -1]))
    b, c, d, a = rotation.as_quat()
    matrix = rotation.as_matrix() * lengths * [1, 1, qfac]
    moved = np.array([draw(st.sampled_from([0.0, 0.0, 0.01, 2.0])), 0, 0])
    turn = Rotation.from_rotvec([0, 0, draw(st.sampled_from([0.0, 0.0, 1e-4, 0.3, 3.0]))]).as_matrix()
    sign = draw(st.sampled_from([1, 1, 1, -1]))
    return {
        "qform_code": draw(st.integers(0, 4)),
        "sform_code": draw(st.integers(0, 4)),
        "quatern": np.array([b, c, d]) * np.sign(a or 1),
        "qoffset": offset,
        "pixdim": [
            qfac,
            lengths[0] * sign,
            lengths[1],
            lengths[2] * draw(st.sampled_from([1, 1, 1.01, 1.5])),
            0,
            0,
            0,
            0,
        ],
        "srow": np.column_stack([turn @ matrix, np.array(offset) + moved]),
        "xyzt_units": draw(st.sampled_from([0, 2, 2, 2, 10])),
        "scl_slope": draw(st.sampled_from([0, 1, 1, 0.5, np.nan])),
        "scl_inter": draw(st.sampled_from([0, 0, -1024.0])),
    }


@settings(max_examples=150, deadline=None)
@given(changes=geometries())
def test_no_header_is_read_in_silence_where_two_readers_differ(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write(tmp_path / "h.nii", header(**changes))
    try:
        volume = read_volume(file)
        affine, values = by_carina(file)
    except BadSeries as error:
        assert error.code in {"file.orientation", "file.spacing"}, error
        return
    (first, one), (second, other) = by_nibabel(file), by_itk(file)
    apart = far(first, second)
    assert (apart < 0.1 and np.array_equal(one, other)) or volume.warnings
    assert min(far(affine, first), far(affine, second)) < 5e-3  # quaternions are stored in single precision
    assert np.array_equal(values, one)


@settings(max_examples=50, deadline=None)
@given(changes=geometries())
def test_no_second_header_is_read_in_silence_elsewhere_than_nibabel(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = write(tmp_path / "h.nii", header(SECOND, **changes))
    try:
        volume = read_volume(file)
    except BadSeries as error:
        assert error.code in {"file.orientation", "file.spacing"}, error
        return
    affine, values = by_carina(file)
    wanted_affine, wanted = by_nibabel(file)
    assert far(affine, wanted_affine) < 0.1 or volume.warnings
    assert np.array_equal(values, wanted)


def test_both_forms_are_written(tmp_path: Path) -> None:
    grid = Grid(shape=(3, 4, 5), spacing_mm=(2.5, 0.7, 0.8), origin_mm=(1.0, 2.0, 3.0))
    write_volume(Volume(hu=np.full(grid.shape, -700, np.int16), grid=grid, uid="v"), tmp_path / "v.nii")
    image = nibabel.load(tmp_path / "v.nii")
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


FAULTS = {
    "conflict.nii.gz": "contradict each other about which way the axes run: qform says LPS, sform RPS",
    "no-orientation.nii.gz": "neither qform nor sform is set",
    "pixdim-z-0.nii.gz": "neither qform nor sform is set|expected numbers above 0",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nifti_geometry_of_others(data: Path, fault: str) -> None:
    with pytest.raises(BadSeries, match=FAULTS[fault]):
        read_volume(data / "faults" / "nifti-geometry" / fault)


def test_nan_padding_of_others(data: Path) -> None:
    volume = read_volume(data / "faults" / "nifti-geometry" / "nan-padding.nii.gz")
    assert volume.hu.min() == -1024
    assert any("voxels are NaN (no number) and taken for padding" in warning for warning in volume.warnings)


@pytest.mark.parametrize(
    "name", ["lungs/lctsc-s1-101_ct.nii.gz", "lungs/acrin-flt-001-chest_ct.nii.gz", "tiny/cip_ct64_ct.nii.gz"]
)
def test_real_files_are_read_as_both_readers_do(data: Path, name: str) -> None:
    volume = read_volume(data / name)
    for reader in (by_nibabel, by_itk):
        affine, values = reader(data / name)
        assert np.array_equal(volume.hu.transpose(2, 1, 0), np.clip(values, -1024, None)), reader.__name__
        assert np.allclose(volume.grid.affine[:3][:, [2, 1, 0, 3]], affine, atol=1e-4)
    assert volume.warnings == ()
