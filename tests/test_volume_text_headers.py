"""MetaImage and NRRD as others write them: read as ITK reads them, else a warning or a refusal."""

from __future__ import annotations

import bz2
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from carina.errors import BadSeries
from carina.volume.files import read_map, read_volume
from nifti_headers import by_carina, by_itk, far

STORED = np.arange(-900, 300, 10, dtype=np.int16)
RAW = STORED.tobytes()
TEXT = " ".join(map(str, STORED)).encode()

META = {
    "ObjectType": "Image",
    "NDims": "3",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "10 20 30",
    "ElementSpacing": "0.7 0.8 2.5",
    "DimSize": "4 5 6",
    "ElementType": "MET_SHORT",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 5 6",
    "space directions": "(0.7,0,0) (0,0.8,0) (0,0,2.5)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(10,20,30)",
}

Changes = Mapping[str, str | None]


def meta(folder: Path, changes: Changes = {}, data: bytes = RAW, *, lines: str = "\n") -> Path:  # noqa: B006
    """A MetaImage of 4 x 5 x 6 voxels with its data in ``a.raw``; None leaves a line out."""
    fields = {key: value for key, value in (META | dict(changes)).items() if value is not None}
    last = fields.pop("ElementDataFile", "a.raw")
    text = "".join(f"{key} = {value}{lines}" for key, value in {**fields, "ElementDataFile": last}.items())
    is_local = last.lower() == "local"
    (folder / "a.raw").write_bytes(data)
    (folder / "a.mhd").write_bytes(text.encode() + (data if is_local else b""))
    return folder / "a.mhd"


def nrrd(folder: Path, changes: Changes = {}, data: bytes = RAW, *, more: str = "") -> Path:  # noqa: B006
    """An NRRD of 4 x 5 x 6 voxels; with a ``data file`` it is detached and the data lie in ``a.raw``."""
    fields = {key: value for key, value in (NRRD | dict(changes)).items() if value is not None}
    text = "NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + more + "\n"
    is_apart = any(key in fields for key in ("data file", "datafile"))
    (folder / "a.raw").write_bytes(data)
    file = folder / ("a.nhdr" if is_apart else "a.nrrd")
    file.write_bytes(text.encode() + (b"" if is_apart else data))
    return file


META_ALIKE: Mapping[str, tuple[Changes, bytes]] = {
    "plain": ({}, RAW),
    "turned": ({"TransformMatrix": "0 1 0 -1 0 0 0 0 1"}, RAW),
    "Rotation": ({"TransformMatrix": None, "Rotation": "0 1 0 -1 0 0 0 0 1"}, RAW),
    "Position": ({"Offset": None, "Position": "1 2 3"}, RAW),
    "ElementSize for spacing": ({"ElementSpacing": None, "ElementSize": "1.5 2 3"}, RAW),
    "both sizes": ({"ElementSize": "1 2 3"}, RAW),
    "big endian": ({"BinaryDataByteOrderMSB": "True"}, STORED.astype(">i2").tobytes()),
    "ElementByteOrderMSB": ({"ElementByteOrderMSB": "True"}, STORED.astype(">i2").tobytes()),
    "a header in the data": ({"HeaderSize": "10"}, bytes(10) + RAW),
    "data at the end": ({"HeaderSize": "-1"}, bytes(10) + RAW),
    "zlib": ({"CompressedData": "True"}, zlib.compress(RAW)),
    "gzip": ({"CompressedData": "True"}, gzip.compress(RAW)),
    "data in the file": ({"ElementDataFile": "LOCAL"}, RAW),
    "4D with one volume": (
        {
            "NDims": "4",
            "DimSize": "4 5 6 1",
            "ElementSpacing": ".7 .8 2.5 1",
            "Offset": "1 2 3 0",
            "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        },
        RAW,
    ),
    "from where it comes": ({"AnatomicalOrientation": "RAI"}, RAW),
    "where it runs to": ({"AnatomicalOrientation": "LPS"}, RAW),
    "orientation unknown": ({"AnatomicalOrientation": "???"}, RAW),
    "float": ({"ElementType": "MET_FLOAT"}, STORED.astype("<f4").tobytes()),
    "long is four bytes": ({"ElementType": "MET_LONG"}, STORED.astype("<i4").tobytes()),
}


@pytest.mark.parametrize("kind", META_ALIKE)
@pytest.mark.parametrize("lines", ["\n", "\r\n"])
def test_metaimage_is_read_as_itk_reads_it(tmp_path: Path, kind: str, lines: str) -> None:
    file = meta(tmp_path, *META_ALIKE[kind], lines=lines)
    affine, values = by_carina(file)
    wanted_affine, wanted = _by_itk(file)
    assert far(affine, wanted_affine) < 1e-3 and np.array_equal(values, wanted)
    assert read_volume(file).warnings == ()


def _by_itk(file: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(file))
    if image.GetDimension() == 3:
        return by_itk(file)
    affine = np.array(image.GetDirection()).reshape(4, 4)[:3, :3] * np.array(image.GetSpacing()[:3])
    return np.column_stack([affine, image.GetOrigin()[:3]]), sitk.GetArrayFromImage(image)[0].transpose(2, 1, 0)


def test_numbers_as_text_are_read(tmp_path: Path) -> None:
    assert np.array_equal(read_volume(meta(tmp_path, {"BinaryData": "False"}, TEXT)).hu.ravel(), STORED)
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_volume(meta(tmp_path, {"BinaryData": "False"}, TEXT[:-60]))
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_volume(meta(tmp_path, {"BinaryData": "False"}, TEXT.replace(b"10", b"ab")))
    with pytest.raises(BadSeries, match="at least a slice more"):
        read_volume(meta(tmp_path, {"BinaryData": "False"}, TEXT + b" " + TEXT))


def test_long_text_is_read_in_parts(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(-1000, 3000, 40 * 50 * 60).astype(np.int16)
    file = nrrd(tmp_path, {"encoding": "ascii", "sizes": "40 50 60"}, "\n".join(map(str, stored)).encode())
    assert np.array_equal(read_volume(file).hu.ravel(), stored)


META_REFUSED: Mapping[str, tuple[Changes, str, str]] = {
    "no spacing": ({"ElementSpacing": None}, "file.spacing", "its header has no ElementSpacing"),
    "spacing 0": (
        {"ElementSpacing": "0.7 0.8 0"},
        "file.spacing",
        "ElementSpacing is 0.7 0.8 0, expected numbers above",
    ),
    "negative spacing": ({"ElementSpacing": "-0.7 0.8 2"}, "file.spacing", "ElementSpacing is -0.7 0.8 2"),
    "NaN as spacing": ({"ElementSpacing": "0.7 0.8 nan"}, "file.spacing", "ElementSpacing is 0.7 0.8 nan"),
    "metres": ({"ElementSpacing": "7e-4 8e-4 2e-3"}, "file.spacing", "voxels of 0.002 x 0.0008 x 0.0007 mm"),
    "NaN as place": ({"Offset": "nan 0 0"}, "file.spacing", "expected numbers"),
    "a sheared matrix": ({"TransformMatrix": "1 0 0 0.2 0.98 0 0 0 1"}, "file.sheared", "its axes are sheared"),
    "a scaled matrix": ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, "file.sheared", "expected directions of length 1"),
    "a matrix of zeros": ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "file.sheared", "expected directions of length 1"),
    "RAS without a matrix": (
        {"TransformMatrix": None, "AnatomicalOrientation": "RAS"},
        "file.orientation",
        "AnatomicalOrientation is RAS and there is no TransformMatrix",
    ),
    "two dimensions": ({"NDims": "2", "DimSize": "4 30"}, "file.not-3d", "holds 4 x 30 voxels"),
    "two volumes": (
        {
            "NDims": "4",
            "DimSize": "4 5 3 2",
            "ElementSpacing": "1 1 1 1",
            "Offset": "0 0 0 0",
            "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        },
        "file.not-3d",
        "holds 4 x 5 x 3 x 2 voxels",
    ),
    "NDims and DimSize differ": ({"NDims": "4"}, "file.unreadable", "NDims is 4 but DimSize has 3 numbers"),
    "words for sizes": ({"DimSize": "4 five 6"}, "file.unreadable", "DimSize is '4 five 6', expected whole numbers"),
    "channels": ({"ElementNumberOfChannels": "2"}, "file.not-3d", "4 x 5 x 6 voxels with 2 values each"),
    "an array per voxel": ({"ElementType": "MET_SHORT_ARRAY"}, "file.not-3d", "with 2 values each"),
    "another type": ({"ElementType": "MET_OTHER"}, "file.unreadable", "ElementType is 'MET_OTHER'"),
    "byte orders contradict": (
        {"BinaryDataByteOrderMSB": "True", "ElementByteOrderMSB": "False"},
        "file.unreadable",
        "contradict each other",
    ),
    "a function to intensity": (
        {"ElementToIntensityFunctionOffset": "-1024"},
        "file.no-hu",
        "ElementToIntensityFunctionOffset is -1024, which ITK leaves out",
    ),
    "a unit of nobody's": ({"DistanceUnits": "furlong"}, "file.spacing", "DistanceUnits is 'furlong', expected mm"),
    "outside, upwards": ({"ElementDataFile": "../../etc/passwd"}, "file.outside", "not in its own folder"),
    "outside, absolute": ({"ElementDataFile": "/etc/passwd"}, "file.outside", "'/etc/passwd', which is not in its own"),
    "its own folder": ({"ElementDataFile": "."}, "file.outside", "not in its own folder"),
    "a list of files": ({"ElementDataFile": "LIST"}, "file.unreadable", "its voxels lie in several files"),
    "a pattern of files": ({"ElementDataFile": "s%03d.raw 1 6 1"}, "file.unreadable", "lie in several files"),
    "no data file": ({"ElementDataFile": "absent.raw"}, "file.missing", r"absent\.raw: no such file"),
    "a folder of a file": ({"ElementDataFile": "a.raw/b"}, "file.unreadable", "can't be read"),
    "too many slices": ({"DimSize": "4 5 7"}, "file.truncated", "280 bytes of voxels can't be in 240 bytes"),
    "too few slices": ({"DimSize": "4 5 5"}, "file.leftover", "at least a slice more than its header says"),
    "2^40 voxels": ({"DimSize": "1048576 1048576 1"}, "file.too-large", "claims 1099511627776 voxels"),
}


@pytest.mark.parametrize("kind", META_REFUSED)
def test_metaimage_that_nobody_can_know_is_refused(tmp_path: Path, kind: str) -> None:
    changes, code, words = META_REFUSED[kind]
    with pytest.raises(BadSeries, match=words) as caught:
        read_volume(meta(tmp_path, changes))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TransformMatrix": None}, "its header has no TransformMatrix"),
        ({"AnatomicalOrientation": "RAS"}, "AnatomicalOrientation is RAS, which TransformMatrix contradicts"),
        ({"DistanceUnits": "um", "ElementSpacing": "700 800 2500"}, "its lengths are given in um and read as such"),
    ],
)
def test_metaimage_that_leaves_something_open_says_so(tmp_path: Path, changes: Changes, words: str) -> None:
    volume = read_volume(meta(tmp_path, changes))
    assert len(volume.warnings) == 1 and words in volume.warnings[0]
    assert volume.grid.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


def test_text_that_is_no_metaimage_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"NDims = 3\n", bytes(range(256)) * 20, b"\xff\xfe" * 999):
        (tmp_path / "a.mhd").write_bytes(content)
        with pytest.raises(BadSeries, match="is no MetaImage: its header has no ElementDataFile"):
            read_volume(tmp_path / "a.mhd")
    (tmp_path / "a.mhd").write_bytes(b"NDims = 3\nNDims = 2\n")
    with pytest.raises(BadSeries, match="its header has NDims twice"):
        read_volume(tmp_path / "a.mhd")


def test_a_data_file_must_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(BadSeries, match=f"{name}: is no file but a folder, pipe or device"):
            read_volume(meta(tmp_path, {"ElementDataFile": name}))


NRRD_ALIKE: Mapping[str, tuple[Changes, bytes]] = {
    "plain": ({}, RAW),
    "right-anterior-superior": ({"space": "right-anterior-superior"}, RAW),
    "RAS": ({"space": "RAS"}, RAW),
    "left-anterior-superior": ({"space": "left-anterior-superior"}, RAW),
    "any case": ({"space": "Left-Posterior-Superior"}, RAW),
    "no origin": ({"space origin": None}, RAW),
    "turned": ({"space directions": "(0,0.7,0) (-0.8,0,0) (0,0,-2.5)"}, RAW),
    "centred on nodes": ({"centers": "node node node"}, RAW),
    "centred on cells": ({"centers": "cell cell cell"}, RAW),
    "a measurement frame": ({"measurement frame": "(-1,0,0) (0,1,0) (0,0,1)"}, RAW),
    "thicknesses": ({"thicknesses": "nan nan 5"}, RAW),
    "gzip": ({"encoding": "gzip"}, gzip.compress(RAW)),
    "ascii": ({"encoding": "ascii", "endian": None}, TEXT),
    "big endian": ({"endian": "big"}, STORED.astype(">i2").tobytes()),
    "int16": ({"type": "int16"}, RAW),
    "double": ({"type": "double"}, STORED.astype("<f8").tobytes()),
    "detached": ({"data file": "a.raw"}, RAW),
    "detached, older word": ({"datafile": "./a.raw"}, RAW),
    "bytes before": ({"data file": "a.raw", "byte skip": "7"}, bytes(7) + RAW),
    "at the end": ({"data file": "a.raw", "byte skip": "-1"}, bytes(9) + RAW),
}


@pytest.mark.parametrize("kind", NRRD_ALIKE)
def test_nrrd_is_read_as_itk_reads_it(tmp_path: Path, kind: str) -> None:
    file = nrrd(tmp_path, *NRRD_ALIKE[kind], more="# a comment\nkey:=value: with colon\n")
    affine, values = by_carina(file)
    wanted_affine, wanted = by_itk(file)
    assert far(affine, wanted_affine) < 1e-3 and np.array_equal(values, wanted)
    assert read_volume(file).warnings == ()


def test_bzip2_is_read_though_itk_does_not(tmp_path: Path) -> None:
    file = nrrd(tmp_path, {"encoding": "bzip2"}, bz2.compress(RAW[:100]) + bz2.compress(RAW[100:]))
    assert np.array_equal(read_volume(file).hu.ravel(), STORED)
    file = nrrd(tmp_path, {"encoding": "bzip2"}, bz2.compress(RAW)[:-20])
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_volume(file)
    with pytest.raises(BadSeries, match="is cut short or damaged"):
        read_volume(nrrd(tmp_path, {"encoding": "bz2"}, b"BZh9 no bzip2 at all, but long enough"))


@pytest.mark.parametrize(
    "order", [("1 4 5 6", "none (0.7,0,0) (0,0.8,0) (0,0,2.5)"), ("4 5 6 1", "(0.7,0,0) (0,0.8,0) (0,0,2.5) none")]
)
def test_an_axis_of_one_that_lies_not_in_space_is_dropped(tmp_path: Path, order: Sequence[str]) -> None:
    file = nrrd(tmp_path, {"dimension": "4", "sizes": order[0], "space directions": order[1]})
    assert np.array_equal(read_map(file).values.ravel(), STORED)


NRRD_REFUSED: Mapping[str, tuple[Changes, str, str]] = {
    "no space": ({"space": None}, "file.orientation", "it names no space, so nobody can know where left and right are"),
    "scanner-xyz": ({"space": "scanner-xyz"}, "file.orientation", "its space is 'scanner-xyz', so nobody can know"),
    "right-handed": ({"space": "3D-right-handed"}, "file.orientation", "its space is '3d-right-handed'"),
    "spacings alone": (
        {"space": None, "space directions": None, "space origin": None, "spacings": "0.7 0.8 2.5"},
        "file.orientation",
        "it names no space",
    ),
    "no directions": ({"space directions": None}, "file.spacing", "has no space directions"),
    "a direction of NaN": (
        {"space directions": "(1,0,0) (0,1,0) (nan,nan,nan)"},
        "file.spacing",
        "voxels of 1 x 1 x nan",
    ),
    "a direction of zeros": ({"space directions": "(1,0,0) (0,1,0) (0,0,0)"}, "file.spacing", "voxels of 1 x 1 x 0 mm"),
    "sheared": ({"space directions": "(0.7,0.1,0) (0,0.8,0) (0,0,2.5)"}, "file.sheared", "its axes are sheared"),
    "too few directions": ({"space directions": "(1,0,0) (0,1,0)"}, "file.unreadable", "has 2 vectors for 3 axes"),
    "flat directions": ({"space directions": "(1,0) (0,1) (1,1)"}, "file.unreadable", "expected three numbers each"),
    "no vectors": ({"space directions": "1 0 0"}, "file.unreadable", "expected vectors in brackets"),
    "an axis not in space": ({"space directions": "none (1,0,0) (0,1,0)"}, "file.not-3d", "5 x 6 voxels with 4 values"),
    "a vector per voxel": (
        {"dimension": "4", "sizes": "2 4 5 3", "space directions": "none (0.7,0,0) (0,0.8,0) (0,0,2.5)"},
        "file.not-3d",
        "4 x 5 x 3 voxels with 2 values each",
    ),
    "dimension and sizes differ": ({"dimension": "4"}, "file.unreadable", "dimension is 4 but sizes has 3 numbers"),
    "a block": ({"type": "block"}, "file.unreadable", "its type is 'block', which is not read"),
    "hex": ({"encoding": "hex"}, "file.unreadable", "its encoding is 'hex', expected one of raw, txt"),
    "no byte order": ({"endian": None}, "file.unreadable", "its endian is '', expected little or big"),
    "metres": ({"space directions": "(7e-4,0,0) (0,8e-4,0) (0,0,2e-3)"}, "file.spacing", "voxels of 0.002 x 0.0008"),
    "two units": ({"space units": '"mm" "m" "mm"'}, "file.spacing", "expected mm for every axis"),
    "outside, upwards": ({"data file": "../x.raw"}, "file.outside", "which is not in its own folder"),
    "outside, absolute": ({"data file": "/etc/passwd"}, "file.outside", "which is not in its own folder"),
    "a list": ({"data file": "LIST"}, "file.unreadable", "its voxels lie in several files"),
    "a pattern": ({"data file": "s%03d.raw 1 6 1"}, "file.unreadable", "its voxels lie in several files"),
    "absent": ({"data file": "absent.raw"}, "file.missing", "no such file"),
    "bytes before that are fewer than none": (
        {"byte skip": "-5"},
        "file.unreadable",
        "byte skip is -5, expected a count",
    ),
    "too many slices": ({"sizes": "4 5 7"}, "file.truncated", "can't be in 240 bytes"),
    "too few slices": ({"sizes": "4 5 5"}, "file.leftover", "at least a slice more"),
}


@pytest.mark.parametrize("kind", NRRD_REFUSED)
def test_nrrd_that_nobody_can_know_is_refused(tmp_path: Path, kind: str) -> None:
    changes, code, words = NRRD_REFUSED[kind]
    with pytest.raises(BadSeries, match=words) as caught:
        read_volume(nrrd(tmp_path, changes))
    assert caught.value.code == code


def test_nrrd_in_another_unit_says_so(tmp_path: Path) -> None:
    steps = "(0.07,0,0) (0,0.08,0) (0,0,0.25)"
    volume = read_volume(nrrd(tmp_path, {"space units": '"cm" "cm" "cm"', "space directions": steps}))
    assert volume.grid.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert "its lengths are given in cm and read as such" in volume.warnings[0]
