"""dicom-writer and dicom-overlay-writer: the older published pipeline end to end, and a PACS that knows no SEG."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import yaml
from pydicom import Dataset, dcmread
from pydicom.uid import CTImageStorage, SecondaryCaptureImageStorage

import carina
from carina.api.result import Run
from carina.api.study import RunSettings
from carina.config import Settings, load_settings
from carina.dicom.find import choose_source, find_series
from carina.dicom.series import Series
from carina.errors import BadConfig
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.catalogue import definition_file, find_definition
from carina.operators.networks import Networks
from carina.operators.ports import MaskPort, VolumePort
from carina.pipeline import ports
from carina.pipeline.manifest import State
from carina.report.paint import WINDOW_HU
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import write_ct_series
from carina.volume.files import read_mask, write_volume
from carina.volume.volume import Mask, Volume
from dicom_objects_samples import errors_of
from tiny_networks import tiny_environment

OLDER = Path(__file__).with_name("older-pipeline.yaml")

COUNT = 48


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(COUNT, 192, 192), seed=3)


@pytest.fixture(scope="module")
def study(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_ct_series(phantom.volume, folder)
    return folder


@pytest.fixture(scope="module")
def series(study: Path) -> Series:
    source = choose_source(find_series(study))
    assert isinstance(source, Series)
    return source


@pytest.fixture(scope="module")
def stored(phantom: Phantom, series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``volume``, ``lung``, ``lesion`` and an empty ``nothing``, as a run stores them."""
    folder = tmp_path_factory.mktemp("stored")
    volume = carina.read_series(series.instances[0].path.parent)
    lung, lesion = (
        replace(mask, grid=volume.grid, uid=volume.uid, labels=(mask.labels > 0).astype(np.uint8), names={1: name})
        for mask, name in ((phantom.lung, "lung"), (phantom.lesion, "lesion"))
    )
    ports.save_value(VolumePort, volume, folder / "volume")
    for name, mask in {"lung": lung, "lesion": lesion, "nothing": replace(lesion, labels=lesion.labels * 0)}.items():
        ports.save_value(MaskPort, mask, folder / name)
    return folder


def alone(name: str, inputs: dict[str, Path], out: Path) -> list[str]:
    asked = Alone(operator=find_operator(name), inputs=inputs, outputs={"output": out}, variables={})
    return run_alone(asked, (Settings(), Networks(Settings())))


@pytest.fixture(scope="module")
def how(tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """The older published pipeline, with tiny networks: what they find is not the point."""
    tiny = tiny_environment(tmp_path_factory.mktemp("bundles"))
    return RunSettings(pipeline=OLDER, settings=load_settings(None, tiny))


@pytest.fixture(scope="module")
def older(study: Path, how: RunSettings, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return carina.run(study, tmp_path_factory.mktemp("older") / "run", how)


def test_the_older_published_pipeline_runs_end_to_end(older: Run) -> None:
    assert {record.state for record in older.manifest.operators.values()} == {State.DONE}
    lung = read_mask(next((older.folder / "lung").glob("*.mhd")))
    assert lung.volume_ml() > 1000
    files = sorted((older.folder / "dicom" / "slices").iterdir())
    assert [path.name for path in files] == [f"lung-slices-{k + 1:04d}.dcm" for k in range(COUNT)]
    assert older.dicom == tuple(files)
    assert errors_of(files[COUNT // 2]) == []
    sent = older.folder / "MYPACS"
    assert sorted(path.name for path in sent.iterdir()) == [path.name for path in files]


def test_each_of_its_slices_holds_the_lungs_of_the_run(older: Run, series: Series) -> None:
    lung = read_mask(next((older.folder / "lung").glob("*.mhd")))
    for path, source in zip(older.dicom, series.instances, strict=True):
        dataset = dcmread(path)
        k = round(float(lung.grid.indices(np.array(dataset.ImagePositionPatient, float))[0]))
        assert np.array_equal(dataset.pixel_array, lung.labels[k])
        assert (dataset.SOPClassUID, dataset.StudyInstanceUID) == (CTImageStorage, series.study_uid)
        assert dataset.SourceImageSequence[0].ReferencedSOPInstanceUID == source.sop_instance_uid


def test_it_resumes_without_making_a_slice_again(older: Run, how: RunSettings, study: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in older.dicom}
    again = carina.run(study, older.folder, how)
    assert {path: path.stat().st_mtime_ns for path in again.dicom} == times and len(times) == COUNT


@pytest.fixture(scope="module")
def overlay(study: Path, stored: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The colour series of the phantom's true masks."""
    out = tmp_path_factory.mktemp("overlay") / "out"
    inputs = {"input": stored / "lesion", "label_image": stored / "lung", "dcm": study}
    assert alone("dicom-overlay-writer", inputs, out) == []
    return sorted(out.iterdir())


def test_a_colour_series_keeps_the_place_of_each_slice(overlay: list[Path], series: Series) -> None:
    assert [path.name for path in overlay] == [f"overlay-{k + 1:04d}.dcm" for k in range(COUNT)]
    for path, source in zip(overlay, series.instances, strict=True):
        dataset, original = dcmread(path), dcmread(source.path)
        assert dataset.SOPClassUID == SecondaryCaptureImageStorage
        assert dataset.ImagePositionPatient == original.ImagePositionPatient
        assert dataset.ImageOrientationPatient == original.ImageOrientationPatient
    assert errors_of(overlay[COUNT // 2]) == []


def test_a_colour_series_shows_the_ct_with_what_was_marked(
    phantom: Phantom, overlay: list[Path], series: Series
) -> None:
    for k, (path, source) in enumerate(zip(overlay, series.instances, strict=True)):
        colours, grey = dcmread(path).pixel_array.astype(int), grey_of(dcmread(source.path))
        lesion = phantom.lesion.labels[k] > 0
        plain = (phantom.lung.labels[k] == 0) & ~lesion
        plain[:14], plain[:, :12], plain[:, -12:] = False, False, False  # the notice and the letters
        assert np.abs(colours[plain] - grey[plain, None]).max() <= 1
        if lesion.sum() > 30:
            assert (colours[lesion][:, 0] - colours[lesion][:, 2]).mean() > 30, "orange"


def grey_of(original: Dataset) -> np.ndarray:
    """The lung window, 0 to 255, by arithmetic alone."""
    low, high = WINDOW_HU
    hu = original.pixel_array.astype(float) + float(original.RescaleIntercept)
    return np.clip((hu - low) / (high - low), 0, 1) * 255


@pytest.mark.parametrize("lesion", ["lesion", "nothing"])
def test_nothing_found_is_a_series_too(lesion: str, study: Path, stored: Path, tmp_path: Path) -> None:
    assert alone("dicom-writer", {"input": stored / lesion, "dicom": study}, tmp_path / "out") == []
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files[:1]] == ["lesion-slices-0001.dcm"] and len(files) == COUNT
    assert (max(int(dcmread(path).pixel_array.max()) for path in files) == 1) == (lesion == "lesion")


def test_a_volume_is_written_in_hu(study: Path, stored: Path, tmp_path: Path) -> None:
    """Read again by the reader it is the same volume, on the same grid."""
    assert alone("dicom-writer", {"input": stored / "volume", "dicom": study}, tmp_path / "out") == []
    first, again = carina.read_series(study), carina.read_series(tmp_path / "out")
    assert np.array_equal(first.hu, again.hu) and first.grid.same_place(again.grid)


def test_a_mask_or_a_volume_is_told_by_what_its_folder_holds(stored: Path, tmp_path: Path) -> None:
    """A mask without our file beside it is one by its values; a CT has others."""
    port = find_operator("dicom-writer").input_ports["/input"].type
    assert isinstance(ports.load_folder(port, stored / "volume"), Volume)
    assert isinstance(ports.load_folder(port, stored / "nothing"), Mask)
    image = sitk.GetImageFromArray(np.array([[[0, 0], [1, 2]]] * 3, np.int16))
    sitk.WriteImage(image, str(tmp_path / "foreign.nii.gz"))
    assert isinstance(ports.load_folder(port, tmp_path), Mask)


@pytest.mark.parametrize("name", ["dicom-writer", "dicom-overlay-writer"])
def test_a_volume_file_gives_no_objects_and_says_so(name: str, phantom: Phantom, stored: Path, tmp_path: Path) -> None:
    write_volume(phantom.volume, tmp_path / "chest.nii.gz")
    inputs = {"input": stored / "lesion", "label_image": stored / "lung", "dcm": tmp_path / "chest.nii.gz"}
    if name == "dicom-writer":
        inputs = {"input": stored / "lung", "dicom": tmp_path / "chest.nii.gz"}
    (warning,) = alone(name, inputs, tmp_path / "out")
    assert "without DICOM attributes, so no DICOM objects" in warning
    assert not list((tmp_path / "out").iterdir())


def test_the_overlay_definition_is_the_default_one_with_two_steps_more() -> None:
    """So that a change of the default is not forgotten in its twin."""
    default, overlay = (
        yaml.safe_load(find_definition(name).read_text(encoding="utf-8")) for name in ("default", "default-overlay")
    )
    assert overlay["operators"][: len(default["operators"])] == default["operators"]
    assert [step["name"] for step in overlay["operators"][len(default["operators"]) :]] == ["overlay", "send-overlay"]
    assert overlay["parameters"] == default["parameters"]
    used = {step["container"]["image"] for step in default["operators"]}
    assert not used & {"carina/dicom-writer", "clara/dicom-writer", "carina/dicom-overlay-writer"}, "neither by default"


def test_a_definition_is_named_or_given_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert definition_file(None) == find_definition("default")
    assert definition_file("default-overlay") == definition_file(Path("default-overlay"))
    assert definition_file("mine.yaml") == Path("mine.yaml")
    (tmp_path / "default").write_text("mine", encoding="utf-8")
    assert definition_file("default") == Path("default"), "a file that is there comes first"
    known = r"known: default, default-deidentified, default-overlay\."
    with pytest.raises(BadConfig, match=rf"no definition is called 'overlay'; {known}"):
        definition_file("overlay")


def test_the_manifest_counts_a_series_instead_of_listing_it(study: Path, stored: Path, tmp_path: Path) -> None:
    asked = Alone(
        operator=find_operator("dicom-writer"),
        inputs={"input": stored / "lung", "dicom": study},
        outputs={"output": tmp_path / "out"},
        variables={},
        work=tmp_path / "work",
    )
    run_alone(asked, (Settings(), Networks(Settings())))
    facts = json.loads((tmp_path / "work" / "manifest.json").read_text())["operators"]["dicom-writer"]["facts"]
    assert facts["series"]["lung-slices"]["instances"] == COUNT
    uids = {str(dcmread(path).SeriesInstanceUID) for path in (tmp_path / "out").iterdir()}
    assert uids == {facts["series"]["lung-slices"]["uid"]}
