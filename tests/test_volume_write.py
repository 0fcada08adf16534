"""Volume files written: whole or not at all, under any name, read back by ITK and nibabel; refusals in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from carina.dicom.find import choose_source, find_series
from carina.errors import BadConfig, BadSeries
from carina.volume import Grid, Volume
from carina.volume.files import SUFFIXES, read_volume, read_volume_header, volume_name, write_volume

GRID = Grid(shape=(4, 6, 8), spacing_mm=(2.5, 0.7, 0.8), origin_mm=(-12.5, 33.25, -400.0))


def chest(grid: Grid = GRID) -> Volume:
    hu = np.random.default_rng(1).integers(-1024, 3000, grid.shape).astype(np.int16)
    return Volume(hu=hu, grid=grid, uid="1.2.3")


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    matrix = Rotation.from_rotvec([draw(st.floats(-3, 3)) for _ in range(3)]).as_matrix()
    matrix[:, 2] *= draw(st.sampled_from([1, -1]))
    x, y, z = (tuple(float(v) for v in matrix[:, k]) for k in range(3))
    spacing = tuple(draw(st.floats(0.3, 6)) for _ in range(3))
    origin = tuple(draw(st.floats(-600, 600)) for _ in range(3))
    return Grid(shape=(4, 6, 8), spacing_mm=spacing, origin_mm=origin, axes=(z, y, x))  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(grid=grids(), suffix=st.sampled_from(SUFFIXES), compress=st.booleans())
def test_other_readers_find_the_same_voxels_in_the_same_place(
    tmp_path: Path, *, grid: Grid, suffix: str, compress: bool
) -> None:
    file = tmp_path / f"v{suffix}"
    write_volume(chest(grid), file, compress=compress)
    back = read_volume(file)
    assert back.grid.same_place(grid, tolerance_mm=1e-3) and np.array_equal(back.hu, chest(grid).hu)
    assert back.warnings == ()
    image = sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(image), back.hu)
    corner = image.TransformIndexToPhysicalPoint((7, 5, 3))
    assert np.allclose(corner, grid.points_mm([3, 5, 7]), atol=1e-3)
    assert np.allclose(image.GetOrigin(), grid.origin_mm, atol=1e-3)
    if suffix in (".nii", ".nii.gz", ".hdr"):
        other = nibabel.load(file)
        assert np.array_equal(np.asarray(other.dataobj).T, back.hu)
        away_mm = float(np.linalg.norm(np.multiply(grid.spacing_mm, [3, 5, 7])))
        turned_mm = 1.3e-3 * away_mm  # near half a turn, a quaternion without its real part tells no finer angle
        for affine, atol in ((other.affine, 1e-3), (other.get_sform(), 1e-3), (other.get_qform(), 1e-3 + turned_mm)):
            assert np.allclose((affine @ [7, 5, 3, 1])[:3] * [-1, -1, 1], grid.points_mm([3, 5, 7]), atol=atol)


HOSTILE = [
    "50% done",
    "%d",
    "%s%n",
    "LIST",
    "Local",
    " a b ",
    "a=b;c:d#e",
    "Müller",
    "肺",
    "-rf",
    "a\nb",
    "caf\udce9",
    "a'b\"c",
    "x" * 240,
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_name_can_be_written_and_read(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / name / f"{name}{suffix}"
    write_volume(chest(), file)
    volume = read_volume(file)
    assert np.array_equal(volume.hu, chest().hu)
    volume.uid.encode()
    assert "\n" not in volume.uid and volume.uid == volume_name(file)
    assert not [left for left in file.parent.iterdir() if left.name.startswith(".carina")]


@pytest.mark.parametrize("name", ["50% done", "LIST of files", "Local", "Müller", "a b"])
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize("compress", [False, True])
def test_itk_reads_what_lies_under_a_name_it_could_misread(
    tmp_path: Path, *, name: str, suffix: str, compress: bool
) -> None:
    write_volume(chest(), tmp_path / f"{name}{suffix}", compress=compress)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{name}{suffix}"))), chest().hu)


@settings(max_examples=60, deadline=None)
@given(name=st.binary(min_size=1, max_size=60), suffix=st.sampled_from(SUFFIXES))
def test_names_of_any_bytes_come_back(tmp_path: Path, name: bytes, suffix: str) -> None:
    assume(b"/" not in name and b"\0" not in name)
    file = tmp_path / f"{os.fsdecode(name)}{suffix}"
    write_volume(chest(), file)
    assert np.array_equal(read_volume(file).hu, chest().hu)
    for left in tmp_path.iterdir():
        left.unlink()


def test_a_latin1_name_is_found_and_read(tmp_path: Path) -> None:
    """As faults/latin1-file-name: the bytes are no UTF-8."""
    grid = Grid(shape=(12, 64, 64), spacing_mm=(8.0, 4.0, 4.0), origin_mm=(0.0, 0.0, 0.0))
    file = tmp_path / os.fsdecode(b"caf\xe9.nii.gz")
    hu = np.where(np.arange(64) % 3, -900, 40) * np.ones(grid.shape)
    write_volume(Volume(hu=hu.astype(np.int16), grid=grid, uid="v"), file)
    listing = find_series(tmp_path)
    found = listing.found[0]
    assert found.problems == () and found.uid == "caf\\udce9"
    assert np.array_equal(read_volume(choose_source([found]).path).hu, hu)  # type: ignore[union-attr]
    file.write_bytes(b"nothing")
    with pytest.raises(BadSeries, match=r"caf\\udce9\.nii\.gz: is no NIfTI file"):
        choose_source(find_series(tmp_path).found)


def test_the_data_file_of_a_header_belongs_to_it(tmp_path: Path) -> None:
    for suffix in (".mhd", ".hdr", ".nhdr"):
        write_volume(chest(), tmp_path / suffix[1:] / f"v{suffix}")
        (found,) = find_series(tmp_path / suffix[1:]).found
        assert len(found.files) == 2 and all(file.exists() for file in found.files)


def _name_too_long(folder: Path) -> Path:
    return folder / f"{'x' * 300}.mhd"


def _is_a_folder(folder: Path) -> Path:
    (folder / "v.mhd").mkdir()
    return folder / "v.mhd"


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("in the way")
    return folder / "file" / "v.mhd"


def _zero_byte(folder: Path) -> Path:
    return folder / "a\0b.mhd"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_name_too_long, "File name too long"),
        (_is_a_folder, "v.mhd is a folder"),
        (_below_a_file, "Not a directory|File exists"),
        (_zero_byte, "embedded null byte"),
    ],
)
def test_a_place_that_can_not_be_written_is_told_in_one_line(tmp_path: Path, make: object, reason: str) -> None:
    file = make(tmp_path)  # type: ignore[operator]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadConfig, match=rf"can't be written \(({reason})\)") as caught:
        write_volume(chest(), file)
    assert caught.value.code == "output.unwritable" and "\n" not in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder in which this process may read no file and write none, not even as root."""
    folder = Path(tempfile.mkdtemp())
    write_volume(chest(), folder / "v.nii")
    (folder / "v.nii").chmod(0o000)
    folder.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_no_permission_is_told_in_one_line(locked: Path) -> None:
    with pytest.raises(BadSeries, match=r"v\.nii: can't be read \(Permission denied\)"):
        read_volume_header(locked / "v.nii")
    with pytest.raises(BadConfig, match=r"can't be written \(Permission denied\)"):
        write_volume(chest(), locked / "w.mhd")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_place_leaves_the_old_file_as_it_was(tmp_path: Path, suffix: str) -> None:
    """In a process of its own, which may write 2 KB a file: the error is that of a quota."""
    file = tmp_path / f"v{suffix}"
    write_volume(chest(), file)
    before = {left.name: left.read_bytes() for left in tmp_path.iterdir()}
    big = Grid(shape=(40, 64, 64), spacing_mm=(2.5, 0.7, 0.8), origin_mm=(0.0, 0.0, 0.0))
    program = (
        "import resource, sys; from pathlib import Path; import numpy as np\n"
        "from carina.errors import BadConfig; from carina.volume import Grid, Volume\n"
        "from carina.volume.files import write_volume\n"
        f"grid = Grid(shape={big.shape}, spacing_mm={big.spacing_mm}, origin_mm={big.origin_mm})\n"
        "hu = np.random.default_rng(1).integers(-1000, 1000, grid.shape).astype(np.int16)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
        "try:\n    write_volume(Volume(hu=hu, grid=grid, uid='v'), Path(sys.argv[1]))\n"
        "except BadConfig as error:\n    print(error.message)\n"
    )
    told = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True).stdout
    assert "can't be written (File too large)" in told and told.count("\n") == 1
    assert {left.name: left.read_bytes() for left in tmp_path.iterdir()} == before


def test_what_can_not_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "empty.nii").write_bytes(b"")
    for name, words in {
        "folder.nii": "is no file but a folder, pipe or device",
        "pipe.nii": "is no file but a folder, pipe or device",
        "loop.nii": r"can't be read \(Too many levels of symbolic links\)",
        "empty.nii": "is no NIfTI file",
        f"{'x' * 300}.nii": r"can't be read \(File name too long\)",
        "a\0b.nii": "can't be read",
        "absent.nii": "no such file",
        "empty.nii/x.nii": r"can't be read \(Not a directory\)",
    }.items():
        with pytest.raises(BadSeries, match=words) as caught:
            read_volume(tmp_path / name)
        assert "\n" not in caught.value.message
