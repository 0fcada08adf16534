"""Synthetic cases with known truth, data lists from DICOM, sheets."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import ndimage

from carina.cases.checks import check_data
from carina.cases.datalist import DataList, ListedCase, read_datalist
from carina.cases.prepare import PrepareSettings, prepare, split
from carina.cases.purpose import Targets, Task
from carina.cases.synthetic import healthy_cases, write_synthetic
from carina.cli.synth import KINDS, SIZES
from carina.cli.synth import synth as command
from carina.errors import BadConfig, BadSeries
from carina.synth.chests import (
    Chest,
    SynthSettings,
    phantom_chests,
    synthesise,
)
from carina.synth.lesions import LIMITS_ML, DrawnLesion, Kind, Size, paste
from carina.synth.phantom import chest_phantom
from carina.synth.sheet import RealDisease, real_spots, sheet
from carina.testing.dicom import write_ct_series
from carina.train.settings import Patch, TrainSettings
from carina.volume import Mask
from carina.volume.files import read_mask, read_volume, write_mask, write_volume

SMALL = (40, 128, 128)
PLAIN = SynthSettings(count=2, lesions=(2, 2), distractors=False, phantom_shape=SMALL)
SEGMENTATION = TrainSettings(
    task=Task.LESION,
    name="t",
    network={"classes": 2},
    patches=(Patch(shape=(32, 32, 16)),),
    window_hu=(-1000.0, 500.0),
    source=Targets.LABELS,
)


@pytest.fixture(scope="module")
def chest() -> Chest:
    return next(phantom_chests(PLAIN))


def _rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_command_knows_every_kind_and_size() -> None:
    assert tuple(Kind) == KINDS and tuple(Size) == SIZES and set(LIMITS_ML) == set(Size)


def test_one_seed_gives_one_case_and_another_another(chest: Chest) -> None:
    settings = dataclasses.replace(PLAIN, distractors=True)
    first, again, other = (synthesise(chest, settings, _rng(seed)) for seed in (4, 4, 5))
    assert np.array_equal(first.volume.hu, again.volume.hu) and first.truth == again.truth
    assert not np.array_equal(first.volume.hu, other.volume.hu)


@pytest.mark.parametrize("size", Size)
@pytest.mark.parametrize("kind", Kind)
def test_a_lesion_is_of_the_kind_and_size_asked_for(chest: Chest, kind: Kind, size: Size) -> None:
    made = synthesise(chest, dataclasses.replace(PLAIN, kinds=(kind,), sizes=(size,), lesions=(1, 1)), _rng(2))
    (truth,) = made.truth
    low, high = LIMITS_ML[size]
    assert truth.kind is kind and truth.size is size
    assert low <= truth.lesion_ml < high and made.lesion.volume_ml() == pytest.approx(truth.lesion_ml)
    inside, lung = made.lesion.labels > 0, made.lung.labels > 0
    assert not (inside & ~lung).any()
    assert np.array_equal(made.volume.hu[~lung], chest.volume.hu[~lung])
    centre = made.lesion.grid.points_mm(np.argwhere(inside).mean(axis=0))
    assert centre == pytest.approx(truth.centre_mm, abs=0.01)


def test_kinds_differ_in_density(chest: Chest) -> None:
    middle = {}
    for kind in (Kind.GROUND_GLASS, Kind.CONSOLIDATION):
        made = synthesise(
            chest, dataclasses.replace(PLAIN, kinds=(kind,), sizes=(Size.LARGE,), lesions=(1, 1)), _rng(3)
        )
        was_air = (made.lesion.labels > 0) & (chest.volume.hu < -700)
        middle[kind] = float(np.median(made.volume.hu[was_air]))
    assert -800 < middle[Kind.GROUND_GLASS] < -300
    assert -150 < middle[Kind.CONSOLIDATION] < 100


def test_consolidation_reaches_the_pleura_without_a_rim_of_air() -> None:
    hu = np.full((3, 30, 30), 40.0, dtype=np.float32)
    hu[:, 5:25, 5:25] = -850
    hu[:, 4, 5:25] = -450
    lung = np.zeros(hu.shape, dtype=bool)
    lung[:, 5:25, 5:25] = True
    lesion = DrawnLesion(
        kind=Kind.CONSOLIDATION,
        centre=(1.0, 6.0, 15.0),
        radii_mm=(20.0, 6.0, 6.0),
        angle=0.0,
        border_mm=1.0,
        fraction=1.0,
        texture=0.02,
        texture_mm=3.0,
        ragged=0.1,
    )
    filled, mask = paste(hu, lung, (5.0, 0.8, 0.8), [lesion], _rng(1))
    assert filled[1, 4, 13:18].min() > -200 and filled[1, 5, 13:18].min() > -200
    assert mask[1, 5, 13:18].all() and not (mask & ~lung).any()


def test_look_alikes_are_no_lesions_and_fluid_is_no_lung(chest: Chest) -> None:
    settings = dataclasses.replace(PLAIN, distractors=True, healthy=1.0)
    smaller = 0
    for seed in range(12):
        made = synthesise(chest, settings, _rng(seed))
        assert made.truth == () and made.lesion.is_empty
        smaller += made.lung.volume_ml() < 0.99 * chest.lung.volume_ml()
    assert 1 <= smaller <= 6


def test_an_empty_lung_mask_is_refused(chest: Chest) -> None:
    empty = dataclasses.replace(chest.lung, labels=np.zeros_like(chest.lung.labels))
    with pytest.raises(BadSeries, match="its lung mask is empty"):
        synthesise(dataclasses.replace(chest, lung=empty), PLAIN, _rng(1))


def test_written_cases_pass_the_checks_and_their_table_is_true(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        command,
        [
            "cases",
            *["-o", str(tmp_path)],
            *["--count", "3", "--healthy", "0.3", "--slices", "40", "--pixels", "128", "--seed", "3"],
        ],
    )
    assert result.exit_code == 0, result.output
    data = read_datalist(tmp_path / "data.json")
    assert len(data.training) == 2 and len(data.validation) == 1
    for task in (Task.LESION, Task.COVID):
        report = check_data(data, msgspec.structs.replace(SEGMENTATION, task=task).purpose)
        assert not [problem for problem in report.problems if "label" not in problem]
    with (tmp_path / "lesions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for item in data.training + data.validation:
        own = [row for row in rows if row["case"] == item.name]
        mask = read_mask(data.path(item.label_image))
        assert item.label == (int(bool(own)),) and mask.is_empty == (not own)
        assert mask.volume_ml() <= sum(float(row["lesion_ml"]) for row in own) + 0.001


def test_cases_stay_in_the_part_of_their_lungs(tmp_path: Path, chest: Chest) -> None:
    write_volume(chest.volume, tmp_path / "a.nii.gz")
    write_volume(chest.volume, tmp_path / "b.nii.gz")
    lung = Mask(labels=np.minimum(chest.lung.labels, 1), grid=chest.lung.grid, names={1: "lung"}, uid="x")
    write_mask(lung, tmp_path / "lung.nii.gz")
    first = ListedCase(image="a.nii.gz", lung_image="lung.nii.gz", patient="A")
    ill = ListedCase(image="c.nii.gz", lung_image="lung.nii.gz", label=(1,))
    held = ListedCase(image="b.nii.gz", lung_image="lung.nii.gz", patient="B")
    data = DataList(file=tmp_path / "data.json", training=(first, ill), validation=(held,))
    settings = dataclasses.replace(PLAIN, count=3, lesions=(1, 1), kinds=(Kind.GROUND_GLASS,))
    written = write_synthetic(tmp_path / "out", settings, data)
    assert [one.patient for one in written.training] == ["A", "A"]
    assert [one.patient for one in written.validation] == ["B"]
    with pytest.raises(BadConfig, match="no case has a lung mask and no disease"):
        healthy_cases(dataclasses.replace(data, training=(ill,), validation=()))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chests as DICOM series, and a folder with half of a file."""
    folder = tmp_path_factory.mktemp("studies")
    for number in (1, 2):
        phantom = chest_phantom(shape=(40, 200, 200), lesions=0, seed=number)
        write_ct_series(phantom.volume, folder / f"patient{number}")
    files = sorted((folder / "patient1").iterdir())
    (folder / "broken").mkdir()
    (folder / "broken" / "slice.dcm").write_bytes(files[0].read_bytes()[:700])
    return folder


def _quick_lungs(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """In place of the procedure that labels lungs, which has tests of its own: neither fresh air nor tissue."""
    return ndimage.binary_opening((hu > -960) & (hu < -500), np.ones((1, 3, 3), bool)).astype(np.uint8)


def test_a_list_is_made_from_folders_of_dicom(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carina.cases.case.label_lungs", _quick_lungs)
    monkeypatch.setattr("carina.cases.prepare.AXIAL", 2)
    monkeypatch.setattr("carina.cases.prepare.CORONAL", 2)
    heard: list[str] = []
    made = prepare(studies, tmp_path, PrepareSettings(ill=("patient2",), validation=0.5, sheets=True), heard.append)
    (failure,) = made.failures
    assert failure.startswith("broken/slice.dcm: it has no pixel data")
    assert read_datalist(tmp_path / "data.json").training == made.data.training
    items = {item.name: item for item in made.data.training + made.data.validation}
    assert {name: item.label for name, item in items.items()} == {"patient1": (0,), "patient2": (1,)}
    assert (heard, len(made.data.training), len(made.data.validation)) == (["patient1", "patient2"], 1, 1)
    phantom = chest_phantom(shape=(40, 200, 200), lesions=0, seed=1)
    volume = read_volume(made.data.path(items["patient1"].image))
    assert np.array_equal(volume.hu, phantom.volume.hu) and volume.grid.same_place(phantom.volume.grid)
    found = read_mask(made.data.path(items["patient1"].lung_image)).labels > 0
    assert found[phantom.lung.labels > 0].mean() > 0.95
    with Image.open(tmp_path / "sheets" / "patient1.png") as picture:
        assert picture.width == 1600 and np.asarray(picture).std() > 20
    synthetic = msgspec.structs.replace(SEGMENTATION, source=Targets.SYNTHETIC)
    assert check_data(made.data, synthetic.purpose).problems == ()


def test_what_can_not_be_listed_is_named(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="'patient9' is no case; there are patient1, patient2"):
        prepare(studies, tmp_path, PrepareSettings(ill=("patient9",)))
    with pytest.raises(BadSeries, match=r"no series can be used: slice.dcm: it has no pixel data"):
        prepare(studies / "broken", tmp_path, PrepareSettings())


def test_a_share_of_patients_is_split_off() -> None:
    items = tuple(ListedCase(image=f"{n}.nii.gz") for n in range(10))
    data = DataList(file=Path("x.json"), training=items)
    assert len(split(data, 0.2).validation) == 2
    assert split(data, 0.0).validation == () and len(split(data, 1.0).training) == 10
    assert split(dataclasses.replace(data, training=items[:1]), 0.2).validation == ()


def test_a_sheet_has_a_row_for_each_kind_and_real_places_lie_in_the_lesions(chest: Chest) -> None:
    phantom = chest_phantom(shape=(24, 240, 240), lesions=3, seed=5)
    hu = phantom.volume.hu[:, ::-1, ::-1]
    lung, lesion = (mask.labels[:, ::-1, ::-1] for mask in (phantom.lung, phantom.lesion))
    real = RealDisease(name="real", hu=hu, lung=lung, spacing_mm=(5.0, 0.8, 0.8))
    for spot in real_spots(real, 2):
        level = next(z for z in range(len(hu)) if np.array_equal(hu[z], spot.hu))
        y, x = spot.middle
        assert lesion[level, y - 12 : y + 13, x - 12 : x + 13].any()
    plain, beside = sheet([chest], None, 1), sheet([chest], real, 1)
    assert plain.tobytes() == beside.crop((0, 0, *plain.size)).tobytes()
    assert beside.width > plain.width and plain.height == beside.height


def test_the_sheet_command_writes_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chest: Chest) -> None:
    import carina.cli.synth as module

    monkeypatch.setattr(module, "_chests", lambda lungs: [chest])
    for name in ("sheet.png", "sheet.jpg"):
        result = CliRunner().invoke(command, ["sheet", "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 700
