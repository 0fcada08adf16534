"""What is read back, inflated or decoded is bounded by ``limits.voxels``, and the refusal names that key."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

import carina
from carina.config import LimitSettings, Settings
from carina.dicom.decode import open_pixels
from carina.dicom.find import find_series
from carina.dicom.voxel_limit import allow_voxels, allowed_voxels
from carina.dicom.whole_file import read_whole
from carina.errors import BadSeries
from carina.jobs.estimate import LARGEST_SLICE, slice_voxels
from carina.operators.stored_images import StoredMask, StoredVolume
from carina.operators.stored_source import StoredSource
from carina.receive.same_instance import is_same_object
from carina.service.dicomweb.frames import FrameSource
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.metadata import bulk_data, metadata_of
from carina.service.problems import NotThere
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import write_volume
from carina.volume.volume import Mask

SHAPE = (40, 64, 64)
VOXELS = 40 * 64 * 64
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    before = allowed_voxels()
    yield
    allow_voxels(LimitSettings(voxels=before))


@pytest.fixture
def ct(tmp_path: Path) -> list[Path]:
    return list(write_ct_series(chest_phantom(shape=SHAPE, lesions=0).volume, tmp_path / "ct"))


READ_BACK: dict[str, Callable[[Path, list[Path]], object]] = {}


def reads_back(use: Callable[[Path, list[Path]], object]) -> Callable[[Path, list[Path]], object]:
    READ_BACK[use.__name__] = use
    return use


@reads_back
def a_stored_series(folder: Path, ct: list[Path]) -> object:
    return StoredSource.load(ct)


@reads_back
def a_stored_volume(folder: Path, ct: list[Path]) -> object:
    return StoredVolume.load(StoredVolume.save(chest_phantom(shape=SHAPE, lesions=0).volume, folder, lambda _: ()))


@reads_back
def a_stored_mask(folder: Path, ct: list[Path]) -> object:
    grid = chest_phantom(shape=SHAPE, lesions=0).volume.grid
    mask = Mask(labels=np.zeros(SHAPE, np.uint8), grid=grid, names={1: "lung"}, uid="1.2")
    return StoredMask.load(StoredMask.save(mask, folder, lambda _: ()))


@reads_back
def a_stored_volume_file(folder: Path, ct: list[Path]) -> object:
    write_volume(chest_phantom(shape=SHAPE, lesions=0).volume, folder / "a.nii.gz")
    return StoredSource.load([folder / "a.nii.gz"])


@reads_back
def a_listed_series(folder: Path, ct: list[Path]) -> object:
    found = find_series(ct[0].parent).found[0]
    if found.source is None:
        raise BadSeries("series.memory", found.problems[0].words)
    return found


@reads_back
def frames(folder: Path, ct: list[Path]) -> object:
    header = dcmread(ct[0])
    header.NumberOfFrames, header.PixelData = SHAPE[0], header.PixelData * SHAPE[0]
    header.save_as(folder / "frames.dcm")
    return open_pixels(folder / "frames.dcm").stored(1)


@pytest.mark.parametrize("what", READ_BACK)
def test_what_is_read_back_has_the_voxels_that_the_setting_allows(tmp_path: Path, ct: list[Path], what: str) -> None:
    (tmp_path / "made").mkdir()
    allow_voxels(LimitSettings(voxels=VOXELS - 1))
    with pytest.raises(BadSeries, match=rf"voxels, more than limits\.voxels \({VOXELS - 1}\) allow"):
        READ_BACK[what](tmp_path / "made", ct)
    allow_voxels(LimitSettings(voxels=VOXELS))
    READ_BACK[what](tmp_path / "made", ct)


@pytest.mark.parametrize("before", [1, VOXELS // SHAPE[0] - 1, VOXELS - 1])
def test_a_call_reads_by_its_own_settings_and_not_by_those_of_an_earlier_one(
    ct: list[Path], monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    uid = str(dcmread(ct[0]).SeriesInstanceUID)
    allow_voxels(LimitSettings(voxels=before))
    monkeypatch.setenv("CARINA_LIMITS_VOXELS", str(VOXELS))
    assert carina.read_series(ct[0].parent, uid).hu.shape == SHAPE
    monkeypatch.setenv("CARINA_LIMITS_VOXELS", str(before))
    with pytest.raises(BadSeries, match=rf"limits\.voxels|{VOXELS}"):
        carina.read_series(ct[0].parent, uid)
    found = carina.find_series(ct[0].parent, Settings(limits=LimitSettings(voxels=VOXELS)))
    assert (found.found[0].source is not None, allowed_voxels()) == (True, VOXELS)


def bomb(file: Path, folder: Path, megabytes: int) -> Path:
    """A deflated file of a few kilobytes that inflates to so much."""
    header = dcmread(file)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.PixelData = b""
    header.save_as(folder / "small.dcm")
    data = (folder / "small.dcm").read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    plain = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    at = plain.rindex(b"\xe0\x7f\x10\x00OW")
    size = megabytes * MEGABYTE
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with (folder / "bomb.dcm").open("wb") as stream:
        stream.write(data[:start])
        stream.write(packer.compress(plain[:at] + b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little")))
        for _ in range(megabytes):
            stream.write(packer.compress(bytes(MEGABYTE)))
        stream.write(packer.flush())
    return folder / "bomb.dcm"


def held(file: Path) -> Held:
    return Held(study_uid="1.2", series_uid="1.3", sop_instance_uid="1.4", sop_class_uid="1.5", path=file)


USES: dict[str, Callable[[Path], object]] = {
    "a header": lambda file: read_whole(file, stop_before_pixels=True).Rows,
    "metadata": lambda file: metadata_of(held(file), "http://x"),
    "an estimate": slice_voxels,
    "a frame": lambda file: FrameSource(file).plain(1),
    "pixels": open_pixels,
    "another file": lambda file: is_same_object(file, file),
    "bulk data": lambda file: bulk_data(held(file), "00420011"),
    "all": read_whole,
}


@pytest.mark.parametrize("use", USES)
def test_a_small_file_that_inflates_to_much_takes_little_memory(tmp_path: Path, ct: list[Path], use: str) -> None:
    file = bomb(ct[0], tmp_path, 300)
    assert file.stat().st_size < MEGABYTE
    allow_voxels(LimitSettings(voxels=VOXELS))
    tracemalloc.start()
    try:
        USES[use](file)
    except (BadSeries, NotThere) as error:
        assert use in ("all", "bulk data")
        assert "more than limits.voxels" in error.message or use == "bulk data"
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 160 * MEGABYTE


def test_of_a_deflated_file_all_is_read_as_pydicom_reads_it(tmp_path: Path, ct: list[Path]) -> None:
    header = dcmread(ct[0])
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(tmp_path / "deflated.dcm")
    file = tmp_path / "deflated.dcm"
    assert read_whole(file) == dcmread(file)
    assert read_whole(file).file_meta == dcmread(file).file_meta
    without = read_whole(file, stop_before_pixels=True)
    assert without == dcmread(file, stop_before_pixels=True)
    assert "PixelData" not in without
    assert (slice_voxels(file), LARGEST_SLICE) == (64 * 64, 1024 * 1024)
    rows = dcmread(file, stop_before_pixels=True, specific_tags=["Rows"])
    assert read_whole(file, stop_before_pixels=True, tags=["Rows"]) == rows
