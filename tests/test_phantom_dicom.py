"""The phantom as DICOM files, right and wrong on purpose, and the loopback PACS."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)

from carina import RESEARCH_ONLY
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import TRANSFER_SYNTAXES, SeriesSettings, write_ct_series
from carina.testing.pacs import memory_pacs, orthanc, orthanc_program, send
from carina.volume import Volume

NOT_READ_BY_DCIODVFY = (DeflatedExplicitVRLittleEndian, HTJ2KLossless)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return chest_phantom(shape=(6, 96, 80), spacing_mm=(20.0, 4.0, 5.0)).volume


DECODERS = {
    JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    HTJ2KLossless: imagecodecs.jpeg2k_decode,
}


def frames(path: Path) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    decode = DECODERS.get(dataset.file_meta.TransferSyntaxUID)
    stored = decode(next(generate_frames(dataset.PixelData, number_of_frames=1))) if decode else dataset.pixel_array
    return stored.astype(np.int32) * int(dataset.RescaleSlope) + int(dataset.RescaleIntercept)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES, ids=lambda uid: uid.keyword)
def test_every_transfer_syntax_gives_the_same_voxels(volume: Volume, tmp_path: Path, syntax: str) -> None:
    paths = write_ct_series(volume, tmp_path, settings=SeriesSettings(transfer_syntax=syntax))
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == syntax
    for index, path in enumerate(paths):
        assert np.array_equal(frames(path), volume.hu[index])


@pytest.mark.parametrize("syntax", [s for s in TRANSFER_SYNTAXES if s not in NOT_READ_BY_DCIODVFY])
def test_files_are_valid(volume: Volume, tmp_path: Path, syntax: str) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed; on Debian: apt-get install dicom3tools")
    path = write_ct_series(volume, tmp_path, settings=SeriesSettings(transfer_syntax=syntax))[3]
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert "Error" not in said.stdout + said.stderr
    assert "Warning" not in said.stdout + said.stderr


def test_places_are_the_grids(volume: Volume, tmp_path: Path) -> None:
    for index, path in enumerate(write_ct_series(volume, tmp_path)):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert header.ImagePositionPatient == pytest.approx(volume.grid.points_mm([index, 0, 0]), abs=1e-4)
        assert header.ImageOrientationPatient == pytest.approx([1, 0, 0, 0, 1, 0])
        assert header.PixelSpacing == pytest.approx([4.0, 5.0])
        assert header.SeriesInstanceUID == volume.uid
        assert header.ImageComments == RESEARCH_ONLY


def test_file_order_is_not_slice_order_and_bytes_repeat(volume: Volume, tmp_path: Path) -> None:
    first = write_ct_series(volume, tmp_path / "a")
    again = write_ct_series(volume, tmp_path / "b")
    assert sorted(first) != list(first)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_tilted_planes_show_what_lies_there(tmp_path: Path) -> None:
    volume = chest_phantom(shape=(60, 96, 96), lesions=0, noise_hu=0).volume
    paths = write_ct_series(volume, tmp_path, settings=SeriesSettings(tilt_degrees=15))
    header = pydicom.dcmread(paths[30])
    across, down = np.array(header.ImageOrientationPatient).reshape(2, 3)
    assert np.degrees(np.arctan2(down[2], down[1])) == pytest.approx(15, abs=1e-3)
    normal = np.cross(across, down)
    step = np.array(pydicom.dcmread(paths[31]).ImagePositionPatient) - np.array(header.ImagePositionPatient)
    assert step == pytest.approx([0, 0, volume.grid.spacing_mm[0]], abs=1e-4)
    assert abs(step @ normal) < 0.98 * np.linalg.norm(step)
    row, column = 30, 40
    point = np.array(header.ImagePositionPatient) + row * header.PixelSpacing[0] * down
    point = point + column * header.PixelSpacing[1] * across
    z, y, x = volume.grid.indices(point)
    assert x == pytest.approx(column)
    low, part = int(z), z - int(z)
    row_low, row_part = int(y), y - int(y)
    block = volume.hu[low : low + 2, row_low : row_low + 2, column].astype(float)
    expected = np.array([1 - part, part]) @ block @ np.array([1 - row_part, row_part])
    assert frames(paths[30])[row, column] == pytest.approx(expected, abs=1)


def test_faults_are_written_as_asked(volume: Volume, tmp_path: Path) -> None:
    faulty = SeriesSettings(missing=(2,), truncated=(4,), repeated_uids=True, pixel_data=False)
    paths = write_ct_series(volume, tmp_path / "faulty", settings=faulty)
    assert len(paths) == 5
    headers = [pydicom.dcmread(path, force=True) for path in (paths[0], paths[1])]
    assert headers[0].SOPInstanceUID == headers[1].SOPInstanceUID
    assert "PixelData" not in headers[0]
    whole = write_ct_series(volume, tmp_path / "whole", settings=SeriesSettings(pixel_data=False))
    assert paths[3].stat().st_size <= whole[4].stat().st_size // 2 + 1
    empty = write_ct_series(volume, tmp_path / "empty", settings=SeriesSettings(empty_uids=True))
    assert pydicom.dcmread(empty[0]).SOPInstanceUID == ""
    mr = pydicom.dcmread(write_ct_series(volume, tmp_path / "mr", settings=SeriesSettings(modality="MR"))[0])
    assert mr.SOPClassUID.name == "MR Image Storage"
    assert "RescaleSlope" not in mr


def test_an_unknown_transfer_syntax_is_refused(volume: Volume, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can't write transfer syntax 1\.2\.3; known are: Implicit VR Little Endian"):
        write_ct_series(volume, tmp_path, settings=SeriesSettings(transfer_syntax="1.2.3"))


def test_orthanc_takes_the_series(volume: Volume, tmp_path: Path) -> None:
    if orthanc_program() is None:
        pytest.skip("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-dicomweb")
    plain = write_ct_series(volume, tmp_path / "plain")
    other = SeriesSettings(transfer_syntax=JPEG2000Lossless, study="other")
    datasets: list[Dataset] = [pydicom.dcmread(path) for path in plain]
    (packed, *_) = write_ct_series(volume, tmp_path / "j2k", settings=other)
    compressed = pydicom.dcmread(packed)
    compressed.SOPInstanceUID = compressed.file_meta.MediaStorageSOPInstanceUID = UID("2.25.99")
    with orthanc() as pacs:
        assert send(pacs, [*datasets, compressed]) == (0,) * 7
        assert set(pacs.instances()) == {"2.25.99", *(str(dataset.SOPInstanceUID) for dataset in datasets)}
        back = pydicom.dcmread(io.BytesIO(pacs.fetch(str(datasets[2].SOPInstanceUID))))
        assert back.PixelData == datasets[2].PixelData
        with pytest.raises(KeyError):
            pacs.fetch("1.2.3")


def test_the_pacs_in_memory_keeps_and_refuses(volume: Volume, tmp_path: Path) -> None:
    datasets: list[Dataset] = [pydicom.dcmread(path) for path in write_ct_series(volume, tmp_path)[:3]]
    with memory_pacs(statuses=iter([0xA700, 0])) as pacs:
        assert send(pacs, datasets) == (0xA700, 0, 0)
        assert set(pacs.instances()) == {str(dataset.SOPInstanceUID) for dataset in datasets[1:]}
        back = pydicom.dcmread(io.BytesIO(pacs.fetch(str(datasets[1].SOPInstanceUID))))
        assert np.array_equal(back.pixel_array, datasets[1].pixel_array)
