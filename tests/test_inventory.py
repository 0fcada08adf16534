"""Every file below a path ends as used, copy, other or broken, whatever it is; none is lost in silence."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.uid import UID, ImplicitVRLittleEndian, RLELossless

from carina.cli.series import series
from carina.dicom.find import choose_source, find_series
from carina.dicom.found import Listing
from carina.dicom.inventory import FileCounts
from carina.dicom.read import read_source
from carina.dicom.series import Series
from carina.errors import BadSeries
from carina.pipeline.manifest import DefinitionRecord, Manifest, OperatorRecord
from carina.testing.dicom import SeriesSettings, write_ct_series
from carina.volume import Grid, Volume
from carina.volume.files import write_volume
from reading_slices import ANY, EVEN, SERIES_UID, assert_linear, ct_slice, rebuilt, refusal, save, write_series


def pointed(file: Path, target: str) -> None:
    """Put a link in the file's place."""
    file.unlink()
    file.symlink_to(target)


SPOILERS: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "140 bytes": lambda file: file.write_bytes(file.read_bytes()[:140]),
    "within the header": lambda file: file.write_bytes(file.read_bytes()[:500]),
    "within the pixels": lambda file: file.write_bytes(file.read_bytes()[:-300]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a web page": lambda file: file.write_bytes(b"<html>502 Bad Gateway</html>"),
    "a dangling link": lambda file: pointed(file, "gone"),
    "a link to itself": lambda file: pointed(file, file.name),
}
"""Ways in which a slice is lost."""


def counted(path: Path) -> Listing:
    """What was found, after a look that the counts add up to the files that the operating system lists."""
    listing = find_series(path, ANY)
    there = sum(len(names) for _, _, names in os.walk(path))
    assert listing.counts().total == there == listing.inventory.files
    return listing


def beside(folder: Path) -> None:
    """Things that lie beside slices and are none."""
    (folder / ".DS_Store").write_bytes(b"Bud1")
    (folder / "._000").write_bytes(b"\x00\x05\x16\x07" + bytes(200))
    (folder / "README").write_text("read me")
    (folder / "DONE").write_bytes(b"")
    (folder / "images.zip").write_bytes(b"PK\x03\x04" + bytes(300))
    (folder / "report.pdf").write_bytes(b"%PDF-1.7 " + bytes(300))
    (folder / "disc.iso").write_bytes(bytes(40000))
    save(ct_slice((0, 0, 0), 1, SOPClassUID="1.2.840.10008.1.3.10", PixelData=None), folder / "DICOMDIR")


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
@pytest.mark.parametrize("where", [(0,), (11,), (0, 10, 11)])
def test_slices_lost_at_an_end_are_counted_and_told(
    tmp_path: Path, spoil: Callable[[Path], object], where: tuple[int, ...]
) -> None:
    files = write_series(tmp_path, EVEN)
    beside(tmp_path)
    for k in where:
        spoil(files[k])
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12 - len(where), other=8, broken=len(where))
    (warning,) = listing[0].warnings
    assert "slices are missing at its end" in warning
    assert all(f"{files[k].name}: it " in warning for k in where)
    source = choose_source(listing, ANY)
    assert isinstance(source, Series) and source.counts == listing.counts()
    assert_linear(read_source(source))


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_a_slice_lost_in_the_middle_refuses_the_series_and_is_named(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(write_series(tmp_path, EVEN)[4])
    assert counted(tmp_path).counts() == FileCounts(other=11, broken=1)
    message = refusal(tmp_path).message
    assert "028: it " in message and "without it slices are missing: 5.00 mm between" in message


def test_many_losses_are_counted_not_listed(tmp_path: Path) -> None:
    for file in write_series(tmp_path, EVEN)[7:]:
        file.write_bytes(b"")
    (warning,) = counted(tmp_path)[0].warnings
    assert warning.startswith("5 files are broken (") and "; and 2 more)" in warning


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_broken_files_alone_are_what_was_found(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    for k, file in enumerate(write_series(tmp_path, EVEN)):
        spoil(file.rename(file.with_name(f"{k:03d}.dcm")))
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(broken=12)
    error = refusal(tmp_path)
    assert error.code in ("series.truncated", "series.no-pixels", "input.unreadable")
    assert "000.dcm: it " in error.message


def test_a_broken_copy_of_a_whole_slice_is_no_loss(tmp_path: Path) -> None:
    files = write_series(tmp_path / "a", EVEN)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cut").write_bytes(files[3].read_bytes()[:-300])
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, broken=1) and listing[0].warnings == ()


def test_a_broken_file_is_told_to_the_series_of_its_folder_and_name(tmp_path: Path) -> None:
    write_series(tmp_path / "a", EVEN, prefix="ct_")
    write_series(tmp_path / "a", EVEN, prefix="late_", SeriesInstanceUID="2.25.2", SOPInstanceUID="")
    write_series(tmp_path / "b", EVEN, prefix="ct_", SeriesInstanceUID="2.25.3", SOPInstanceUID="")
    (tmp_path / "a" / "ct_777").write_bytes(b"")
    warned = {one.uid: any("ct_777" in words for words in one.warnings) for one in counted(tmp_path)}
    assert warned == {SERIES_UID: True, "2.25.2": False, "2.25.3": False}


def test_broken_files_of_another_study_are_told_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "good", EVEN)
    for file in write_series(tmp_path / "bad", EVEN, SeriesInstanceUID="2.25.2"):
        file.write_bytes(file.read_bytes()[:500])
    good, bad = counted(tmp_path)
    assert good.taken and good.warnings == ()
    assert bad.error is not None and bad.error.message.startswith("series 2.25.2: 000: it has no pixel data")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_the_same_instances_in_two_transfer_syntaxes_are_one_series(tmp_path: Path, syntax: UID) -> None:
    for file in write_series(tmp_path / "a", EVEN):
        dataset = rebuilt(dcmread(file))
        if syntax == RLELossless:
            dataset.compress(RLELossless)
        dataset.file_meta.TransferSyntaxUID = syntax
        save(dataset, tmp_path / "b" / file.name)
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, copy=12)
    assert "12 file(s) hold slices that others hold as well" in listing[0].warnings[0]
    assert_linear(read_source(choose_source(listing, ANY)))


def test_one_instance_uid_with_other_voxels_is_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    other = dcmread(files[3])
    other.PixelData = bytes(len(other.PixelData))
    save(other, tmp_path / "again")
    assert refusal(tmp_path).code == "series.duplicate"
    assert counted(tmp_path).counts() == FileCounts(other=13)


def test_copies_of_anonymised_slices_without_instance_uids(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_series(tmp_path / folder, EVEN, SOPInstanceUID="")
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, copy=12)
    assert_linear(read_source(choose_source(listing, ANY)))


def test_links_to_one_file_are_copies(tmp_path: Path) -> None:
    files = write_series(tmp_path, EVEN)
    (tmp_path / "linked").symlink_to(files[2])
    (tmp_path / "hard").hardlink_to(files[5])
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, copy=2) and listing[0].warnings == ()


def test_what_is_no_regular_file_is_passed_by_without_waiting(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    os.mkfifo(tmp_path / "pipe.dcm")
    (tmp_path / "null.dcm").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(tmp_path)
        bound.bind("socket.dcm")
        assert counted(tmp_path).counts() == FileCounts(used=12, other=3)
    for name in ("pipe.dcm", "null.dcm"):
        with pytest.raises(BadSeries, match="neither a file nor a folder"):
            find_series(tmp_path / name)


def test_objects_without_a_volume_are_other_not_broken(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    for number, (kind, modality) in enumerate(
        [
            ("1.2.840.10008.5.1.4.1.1.88.22", "SR"),
            ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
            ("1.2.840.10008.5.1.4.1.1.104.1", "DOC"),
            ("1.2.840.10008.5.1.4.1.1.66.4", "SEG"),
        ]
    ):
        dataset = Dataset()
        whole = ct_slice((0, 0, 0), number)
        dataset.file_meta = whole.file_meta
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(kind)
        dataset.Modality, dataset.StudyInstanceUID = modality, whole.StudyInstanceUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SeriesInstanceUID = UID(
            f"2.25.9{number}"
        )
        if modality == "SEG":
            dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.SamplesPerPixel = 20, 24, 8, 1
            dataset.PixelData = bytes(480)
        save(dataset, tmp_path / f"{modality}.dcm")
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, other=4)
    assert listing[0].taken and listing[0].warnings == ()


def test_the_parts_of_a_volume_file_are_used(tmp_path: Path) -> None:
    grid = Grid(shape=(100, 64, 64), spacing_mm=(2, 1, 1), origin_mm=(0, 0, 0))
    for name in ("v.mhd", "v.nhdr"):
        write_volume(Volume(hu=np.full(grid.shape, -800, np.int16), grid=grid, uid="v"), tmp_path / name)
        assert counted(tmp_path).counts() == FileCounts(used=2)
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_volume_file_cut_short_is_broken(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    write_series(tmp_path, EVEN)
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, broken=1)
    assert listing[1].error is not None and listing[1].error.code == "file.unreadable"


@pytest.mark.parametrize("name", [".", "..", "", "%s", "n" * 300, "a\0b", "LIST", "a%03d.raw 1 12 1"])
@pytest.mark.parametrize(("suffix", "key"), [(".mhd", "ElementDataFile ="), (".nhdr", "NRRD0004\ndata file:")])
def test_a_volume_file_whose_data_file_is_a_name_of_none_spoils_nothing(
    tmp_path: Path, suffix: str, key: str, name: str
) -> None:
    (tmp_path / f"v{suffix}").write_text(f"{key} {name}\n")
    write_series(tmp_path, EVEN)
    listing = counted(tmp_path)
    assert listing.counts() == FileCounts(used=12, broken=1)
    assert [one.code for one in listing.inventory.broken] == ["file.unreadable"]


def test_a_damaged_file_is_named_once_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b.dcm").write_bytes(bytes(128) + b"DICM")
    (broken,) = find_series(tmp_path).inventory.broken
    assert broken.reason == "it is truncated within its header"


def test_a_damaged_volume_file_whose_name_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.nii.gz")).write_bytes(b"")
    with pytest.raises(BadSeries, match=r"caf\\udce9\.nii\.gz: is no NIfTI file"):
        choose_source(find_series(tmp_path))
    result = CliRunner().invoke(series, [str(tmp_path)])
    assert result.exit_code == 0 and "files: 1: 0 used, 0 copies, 0 other, 1 broken" in result.output


def test_slices_whose_names_are_no_text_are_read(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for k, file in enumerate(write_series(folder, EVEN)):
        file.rename(folder / os.fsdecode(b"\xe9%d" % k))
    assert_linear(read_source(choose_source(find_series(tmp_path, ANY), ANY)))
    result = CliRunner().invoke(series, [str(folder)])
    assert result.exit_code == 0 and "12 other, 0 broken" in result.output


@pytest.mark.parametrize("each", [300, 5000])
def test_a_path_that_is_too_long_is_refused_in_one_line(each: int) -> None:
    with pytest.raises(BadSeries, match="can't be read \\(File name too long\\)") as caught:
        find_series(Path("a" * each))
    assert "\n" not in caught.value.message and caught.value.exit_code == 3


@pytest.mark.parametrize("mode", [0o000, 0o600, 0o444])
def test_without_permission_one_line_is_said(tmp_path: Path, mode: int) -> None:
    """As nobody: a folder that may not be listed, or whose files may not be opened."""
    write_series(tmp_path / "shut", EVEN)
    program = (
        "import os, sys; from pathlib import Path; from carina.dicom.find import find_series;"
        "from carina.errors import BadSeries;"
        "os.getuid() or os.setuid(65534);"
        "p = Path(sys.argv[1])\n"
        "for path in (p, p / 'shut', p / 'shut' / '000'):\n"
        "    try: listing = find_series(path); print(listing.counts(), listing[0].reason)\n"
        "    except BadSeries as error: print(error.code, error.message)\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (tmp_path / "shut").chmod(mode)
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    (tmp_path / "shut").chmod(0o755)
    assert said.returncode == 0 and said.stderr == "", said.stderr
    lines = said.stdout.splitlines()
    assert len(lines) == 3 and all("Permission denied" in line for line in lines)


def run_folder(folder: Path, *listed: str) -> None:
    record = OperatorRecord(image="x", outputs={"/output": list(listed)})
    definition = DefinitionRecord(name="d", file="d.yaml", sha256="0")
    manifest = Manifest(fingerprint="f", started="2020", definition=definition, operators={"dicom-reader": record})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def test_results_of_earlier_runs_are_passed_by(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", EVEN)
    grid = Grid(shape=(100, 64, 64), spacing_mm=(2, 1, 1), origin_mm=(0, 0, 0))
    volume = Volume(hu=np.full(grid.shape, -800, np.int16), grid=grid, uid="v")
    for place in ("volume/v.mhd", "lung/v.nii.gz", "own/v.nrrd"):
        (tmp_path / "out" / "1" / place).parent.mkdir(parents=True)
        write_volume(volume, tmp_path / "out" / "1" / place)
    run_folder(tmp_path / "out" / "1", "own/v.nrrd")
    listing = counted(tmp_path)
    assert [one.uid for one in listing] == [SERIES_UID]
    assert listing.counts() == FileCounts(used=12, other=5)
    with pytest.raises(BadSeries, match="this folder is a run of Carina's"):
        find_series(tmp_path / "out" / "1")
    (tmp_path / "out" / "1" / "manifest.json").write_text('{"name": "an extension of a browser"}')
    assert len(counted(tmp_path)) == 4


def test_a_run_in_the_folder_of_its_slices_does_not_hide_them(tmp_path: Path) -> None:
    write_series(tmp_path, EVEN)
    run_folder(tmp_path, "dicom/lung-seg.dcm")
    save(ct_slice((0, 0, 0), 1), tmp_path / "dicom" / "lung-seg.dcm")
    assert counted(tmp_path).counts() == FileCounts(used=12, other=2)


def linked(file: Path) -> None:
    file.with_name(f"{file.name}-2").hardlink_to(file)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_mixture_adds_up(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("mixture")
    for number in range(rng.randint(1, 3)):
        folder = root / rng.choice(["", "a", "b/c", ".hidden"])
        changes: dict[str, Any] = rng.choice([{}, {"Modality": "MR"}, {"SOPInstanceUID": ""}, {"PixelData": None}])
        uid = rng.choice([SERIES_UID, f"2.25.{number}"])
        prefix = f"{rng.choice(['', 'x', '.'])}{number}-"
        files = write_series(folder, EVEN, prefix=prefix, SeriesInstanceUID=uid, **changes)
        for file in rng.sample(files, rng.choice([0, 1, 5, 12])):
            rng.choice([*SPOILERS.values(), linked])(file)
        if rng.random() < 0.5:
            beside(folder)
        if rng.random() < 0.3:
            run_folder(folder, "000", "../007")
    try:
        counted(root)
    except BadSeries as error:
        assert error.code == "series.none-found"


FOLDERS = ["reader", "faults", "ct/lungdx-a0002"]


@pytest.mark.parametrize("name", FOLDERS)
def test_real_folders_add_up(data: Path, name: str) -> None:
    for folder in (place for place in (data / name, *(data / name).iterdir()) if place.is_dir()):
        try:
            counted(folder)
        except BadSeries as error:
            assert error.code == "series.none-found"


def test_six_of_thirty_cut_short_are_told_in_the_manifest(tmp_path: Path) -> None:
    from carina.api.study import _files

    grid = Grid(shape=(30, 64, 64), spacing_mm=(2, 1, 1), origin_mm=(0, 0, 0))
    volume = Volume(hu=np.full(grid.shape, -800, np.int16), grid=grid, uid="v")
    write_ct_series(volume, tmp_path, settings=SeriesSettings(truncated=tuple(range(6)), shuffled=False))
    source = choose_source(find_series(tmp_path))
    assert isinstance(source, Series)
    assert source.warnings[0].startswith("6 files are broken (IM0001.dcm: it is truncated")
    told = _files(source)
    broken = told.pop("broken_files")
    assert told == {"used": 24, "copy": 0, "other": 0, "broken": 6}
    assert broken[0] == {
        "file": "IM0001.dcm",
        "reason": "it is truncated: its pixel data has " + broken[0]["reason"].split("has ")[1],
    }
    assert len(broken) == 6
