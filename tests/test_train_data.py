"""Data lists, their checks, and the examples drawn from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from carina.errors import BadConfig
from carina.train.checks import DataReport, check_data
from carina.train.data import make_case, native_labels, to_slices
from carina.train.datalist import DataList, Item, read_datalist, with_fold, without, write_datalist
from carina.train.settings import Augment, Patch, Source
from carina.volume import Mask, Volume
from carina.volume.resample import reorient
from data_lists import GRID, SHAPE, good_list, hu, lesion_labels, lung_labels, settings, write


def _list(folder: Path, content: object) -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


# Data lists


def test_the_published_form_is_read(tmp_path: Path) -> None:
    entry = {"image": "/data/LIDC-IDRI-0095_1.nii.gz", "label_image": "Mask/0095.nii.gz", "label": [1]}
    data = read_datalist(_list(tmp_path, {"training": [entry], "validation": []}))
    assert data.training == (Item(image=entry["image"], label_image="Mask/0095.nii.gz", label=(1,)),)
    assert data.path(data.training[0].image) == Path("/data/LIDC-IDRI-0095_1.nii.gz")
    assert data.path("Mask/0095.nii.gz") == tmp_path / "Mask/0095.nii.gz"
    assert data.training[0].name == "LIDC-IDRI-0095_1"


def test_a_decathlon_list_is_read(tmp_path: Path) -> None:
    content = {"name": "Lungs", "numTraining": 1, "training": [{"image": "a.nii.gz", "label": "b.nii.gz"}], "test": []}
    data = read_datalist(_list(tmp_path, content))
    assert data.training == (Item(image="a.nii.gz", label_image="b.nii.gz"),) and data.validation == ()


def test_a_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    write_datalist(data, data.file)
    assert read_datalist(data.file) == data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], 'expected {"training"'),
        ({"training": {}}, 'expected {"training"'),
        ({"training": [], "validaton": []}, "unknown key 'validaton'"),
        ({"training": [], "validation": {"image": "a"}}, "validation is no list"),
        ({"training": [{"image": "a"}, {"image": "b", "lable": [0]}]}, "entry 2 of training: unknown key 'lable'"),
        ({"training": ["a.nii.gz"]}, "entry 1 of training: expected an object"),
        ({"training": [], "validation": [{"label": [0]}]}, "entry 1 of validation.*image"),
        ({"training": [{"image": "a", "label": [0.5]}]}, "entry 1 of training.*label"),
        ({"training": [{"image": ""}]}, "image is empty"),
    ],
)
def test_a_wrong_list_is_refused_by_name(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(BadConfig, match=words) as raised:
        read_datalist(_list(tmp_path, content))
    assert "list.json" in raised.value.message


def test_a_missing_list_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"none.json: can't be read \(No such file"):
        read_datalist(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadConfig, match=r"bad.json: is no JSON"):
        read_datalist(tmp_path / "bad.json")


def _pool(patients: int) -> DataList:
    items = tuple(
        Item(image=f"{n}-{k}.nii.gz", patient=f"p{n}", label=(int(n < patients // 2),))
        for n in range(patients)
        for k in range(2)
    )
    return DataList(file=Path("pool.json"), training=items[:5], validation=items[5:])


def test_folds_cover_every_entry_once_and_split_no_patient() -> None:
    data = _pool(10)
    held = [with_fold(data, 5, fold).validation for fold in range(5)]
    assert sorted(item.image for part in held for item in part) == sorted(
        item.image for item in data.training + data.validation
    )
    for fold, part in enumerate(held):
        rest = with_fold(data, 5, fold).training
        assert not {item.patient for item in part} & {item.patient for item in rest}
        assert {item.label for item in part} == {(0,), (1,)}
        assert with_fold(data, 5, fold).validation == part


def test_folds_do_not_depend_on_the_order_of_the_list() -> None:
    data = _pool(10)
    turned = dataclasses.replace(data, training=data.training[::-1], validation=data.validation[::-1])
    assert set(with_fold(data, 3, 1).validation) == set(with_fold(turned, 3, 1).validation)


def test_impossible_folds_are_refused() -> None:
    with pytest.raises(BadConfig, match="fold 3 of 3"):
        with_fold(_pool(10), 3, 3)
    with pytest.raises(BadConfig, match="4 patients, too few for 5 folds"):
        with_fold(_pool(4), 5, 0)


def test_entries_are_left_out_by_name_or_patient() -> None:
    data = without(_pool(4), ["p1", "0-1"])
    assert [item.image for item in data.training + data.validation] == [
        "0-0.nii.gz",
        "2-0.nii.gz",
        "2-1.nii.gz",
        "3-0.nii.gz",
        "3-1.nii.gz",
    ]


# Checks


def test_a_good_list_has_nothing_to_complain_of(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    for task in ("lung", "lesion", "covid"):
        for source in Source:
            free = good_list(tmp_path / "free", lesions=False)
            report = check_data(data if source is Source.LABELS else free, settings(task, source=source))
            assert report.problems == ()
            if not (task == "covid" and source is Source.LABELS):
                assert report.warnings == ()


def _change(data: DataList, part: str, number: int, **keys: object) -> DataList:
    items = list(getattr(data, part))
    items[number] = msgspec.structs.replace(items[number], **keys)
    return dataclasses.replace(data, **{part: tuple(items)})


def _missing(folder: Path, data: DataList) -> DataList:
    (folder / "ct1.nii.gz").unlink()
    return data


def _unreadable(folder: Path, data: DataList) -> DataList:
    (folder / "lesion2.nii.gz").write_bytes(b"no image at all")
    return data


def _cut_short(folder: Path, data: DataList) -> DataList:
    file = folder / "ct2.nii.gz"
    file.write_bytes(file.read_bytes()[:2000])
    return data


def _other_shape(folder: Path, data: DataList) -> DataList:
    write(lesion_labels()[1:], folder / "lesion0.nii.gz")
    return data


def _other_grid(folder: Path, data: DataList) -> DataList:
    write(lesion_labels(), folder / "lesion0.nii.gz", dataclasses.replace(GRID, origin_mm=(-30.0, -20.0, 15.0)))
    return data


def _empty_lungs(folder: Path, data: DataList) -> DataList:
    write(np.zeros(SHAPE, dtype=np.uint8), folder / "lung1.nii.gz")
    return data


def _values(make: Callable[[], np.ndarray]) -> Callable[[Path, DataList], DataList]:
    def change(folder: Path, data: DataList) -> DataList:
        write(make(), folder / "ct0.nii.gz")
        return data

    return change


def _with_nan() -> np.ndarray:
    voxels = hu(0).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    return voxels


def _half_mask(folder: Path, data: DataList) -> DataList:
    write(lesion_labels() * np.float32(0.5), folder / "lesion0.nii.gz")
    return data


def _third_value(folder: Path, data: DataList) -> DataList:
    write(lesion_labels() * np.uint8(3), folder / "lesion0.nii.gz")
    return data


def _same_voxels(folder: Path, data: DataList) -> DataList:
    write(hu(0), folder / "copy.nii")
    return _change(data, "validation", 0, image="copy.nii")


MISTAKES = {
    "image missing": (_missing, r"training entry 2, ct1.nii.gz: no such file"),
    "mask no image": (_unreadable, r"training entry 3, lesion2.nii.gz: can't be read as a volume"),
    "image cut short": (_cut_short, r"training entry 3, ct2.nii.gz: is cut short"),
    "mask of another shape": (
        _other_shape,
        r"entry 1, lesion0.nii.gz: has 11 x 40 x 48 voxels \(z, y, x\), its image ct0.nii.gz has 12 x 40 x 48",
    ),
    "mask of another grid": (_other_grid, r"entry 1, lesion0.nii.gz: lies elsewhere than its image ct0.nii.gz"),
    "empty lungs": (_empty_lungs, r"entry 2, lung1.nii.gz: the lung mask is empty"),
    "a picture": (_values(lambda: np.uint8(hu(0) > 0) * np.uint8(255)), r"ct0.nii.gz: 8-bit values can't be HU"),
    "0 to 255": (_values(lambda: np.clip(hu(0), 0, 255)), r"ct0.nii.gz: values run from 0 to 255"),
    "no intercept": (_values(lambda: (hu(0) + 1100).astype(np.uint16)), r"ct0.nii.gz: values run from \d+ to"),
    "scaled": (_values(lambda: hu(0) / np.float32(1000)), r"ct0.nii.gz: values run from -0.9"),
    "windowed": (_values(lambda: np.clip(hu(0), -1000, 60)), r"ct0.nii.gz: no value is above 60"),
    "not a number": (_values(_with_nan), r"ct0.nii.gz: holds values that are no numbers"),
    "half a label": (_half_mask, r"lesion0.nii.gz: values are no whole numbers"),
    "a value too many": (_third_value, r"lesion0.nii.gz: holds the value 3; the network knows 0 to 1"),
    "no mask": (lambda _, data: _change(data, "training", 0, label_image=""), "ct0.nii.gz: has no label_image"),
    "one file in both": (
        lambda _, data: _change(data, "validation", 0, image="ct0.nii.gz"),
        "ct0.nii.gz: is listed for training and for validation",
    ),
    "same voxels in both": (_same_voxels, "copy.nii: is listed for validation, and its voxels are those of ct0.nii.gz"),
    "one patient in both": (
        lambda _, data: _change(data, "validation", 0, patient="p1"),
        r"ct3.nii.gz: validation shows patient 'p1', who is in training too \(ct1.nii.gz\)",
    ),
    "no training": (lambda _, data: dataclasses.replace(data, training=()), "data.json: training is empty"),
    "no validation": (lambda _, data: dataclasses.replace(data, validation=()), "data.json: validation is empty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_with_its_file(tmp_path: Path, mistake: str) -> None:
    make, words = MISTAKES[mistake]
    report = check_data(make(tmp_path, good_list(tmp_path)), settings("lesion"))
    assert [p for p in report.problems if p] and _says(report.problems, words)


def _says(sentences: tuple[str, ...], words: str) -> bool:
    import re

    return any(re.search(words, sentence) for sentence in sentences)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    for make in (_missing, _unreadable, _empty_lungs, _other_grid):
        data = make(tmp_path, data)
    report = check_data(data, settings("lesion"))
    assert len(report.problems) == 4


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ((), "ct1.nii.gz: label holds nothing; expected one class from 0 to 1"),
        ((2,), "ct1.nii.gz: label is 2; expected a class from 0 to 1"),
        ((0, 1), r"ct1.nii.gz: label holds \[0, 1\]"),
    ],
)
def test_wrong_classes_are_named(tmp_path: Path, label: tuple[int, ...], words: str) -> None:
    data = _change(good_list(tmp_path), "training", 1, label=label)
    assert _says(check_data(data, settings("covid")).problems, words)


def test_a_class_that_nobody_shows_is_a_problem_in_training_only(tmp_path: Path) -> None:
    data = _change(good_list(tmp_path), "training", 1, label=(0,))
    report = check_data(data, settings("covid"))
    assert _says(report.problems, "no training entry has label 1")
    assert _says(report.warnings, "no validation entry has label 0")


def test_what_may_be_right_is_a_warning(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    write(np.zeros(SHAPE, dtype=np.uint8), tmp_path / "lesion0.nii.gz")
    write(lung_labels()[:, ::-1, :] * 0 + np.uint8(hu(1) > 500), tmp_path / "lung1.nii.gz")
    write(hu(0), tmp_path / "ct2.nii.gz")
    report = check_data(data, settings("lesion", leave_out=("p9",)))
    assert report.problems == ()
    for words in (
        "lesion0.nii.gz: the lesion mask is empty; right for a healthy patient",
        "lung1.nii.gz: what the lung mask covers has a median of 9.. HU",
        "ct2.nii.gz: is in training twice, also as ct0.nii.gz",
        "leave_out names 'p9'",
    ):
        assert _says(report.warnings, words), words


def test_disease_of_unknown_place_is_not_drawn_into(tmp_path: Path) -> None:
    data = _change(good_list(tmp_path, lesions=False), "training", 0, label=(1,))
    synthetic = settings("lesion", source=Source.SYNTHETIC)
    assert _says(check_data(data, synthetic).warnings, "ct0.nii.gz: shows disease .label 1")
    marked = check_data(good_list(tmp_path), settings("covid", source=Source.SYNTHETIC))
    assert _says(marked.problems, "every training entry shows disease")
    ill = dataclasses.replace(data, training=data.training[:1])
    assert _says(check_data(ill, synthetic).problems, "every training entry shows disease")


def test_left_out_entries_are_not_looked_at(tmp_path: Path) -> None:
    data = _missing(tmp_path, good_list(tmp_path))
    assert check_data(data, settings("lesion", leave_out=("p1",))).problems == ()


def test_the_size_of_the_cache_is_that_of_the_prepared_voxels(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    voxels = SHAPE[0] * SHAPE[1] * SHAPE[2]
    assert _mb(data, spacing_mm=None) == pytest.approx(4 * voxels * 5 / 1e6)
    assert _mb(data, spacing_mm=(0.8, 0.8, 5.0)) == pytest.approx(4 * voxels * 4 * 5 / 1e6)
    covid = check_data(data, settings("covid", patches=(Patch(shape=(192, 192, 64)),)))
    assert covid.cache_mb == pytest.approx(4 * 192 * 192 * 64 * 4 / 1e6)


def _mb(data: DataList, **changes: object) -> float:
    report: DataReport = check_data(data, settings("lesion", **changes))
    return report.cache_mb


# Cases


def _volume(seed: int = 0) -> tuple[Volume, Mask]:
    mask = Mask(labels=lung_labels(), grid=GRID, names={1: "lung"}, uid="x")
    return Volume(hu=hu(seed), grid=GRID, uid="x"), mask


def test_a_case_does_not_depend_on_how_voxels_are_stored() -> None:
    volume, mask = _volume()
    first = make_case("a", volume, mask)
    voxels, grid = reorient(volume.hu, GRID, "SRA")
    labels, _ = reorient(mask.labels, GRID, "SRA")
    turned = make_case(
        "a",
        Volume(hu=np.ascontiguousarray(voxels), grid=grid, uid="x"),
        Mask(labels=np.ascontiguousarray(labels), grid=grid, names={1: "lung"}, uid="x"),
    )
    assert first.hu.shape == (12, 80, 96) and first.spacing_mm == (5.0, 0.8, 0.8)
    assert np.array_equal(first.hu, turned.hu) and np.array_equal(first.lung, turned.lung)


def test_a_case_grows_towards_anterior_and_right() -> None:
    volume, mask = _volume()
    case = make_case("a", volume, mask)
    bone = np.argwhere(case.hu > 500)
    assert bone[:, 1].max() < 10  # posterior in the volume, so at the low end here


def test_labels_go_back_to_the_image_they_came_from() -> None:
    volume, mask = _volume()
    back = native_labels(make_case("a", volume, mask).lung, volume)
    assert np.count_nonzero(back != mask.labels) < 0.02 * np.count_nonzero(mask.labels)


def test_slices_are_interpolated_between_neighbours() -> None:
    ramp = np.repeat(np.array([0, 100, 200, 300], dtype=np.int16), 4).reshape(4, 2, 2)
    volume, mask = _volume()
    case = dataclasses.replace(
        make_case("ramp", volume, mask), hu=ramp, lung=np.ones_like(ramp, dtype=np.uint8), spacing_mm=(2.0, 0.8, 0.8)
    )
    assert to_slices(case, 3.0)[0][:, 0, 0].tolist() == [0, 150, 300]


# Examples

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

SIZE = (32, 32, 8)
ALL = Augment(flip=0.5, rotate=0.5, rot90=0.5, shift=0.5, gamma=0.5, noise=0.5, zoom=0.5)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("task", ["lung", "lesion", "covid"])
def test_an_example_depends_on_its_generator_alone(tmp_path: Path, task: str, source: Source) -> None:
    from carina.train.examples import open_source

    chosen = settings(task, source=source, augment=ALL)
    data = good_list(tmp_path, lesions=source is Source.LABELS)
    first, again = open_source(data, chosen), open_source(data, chosen)
    for number in (3, 1, 2):
        image, target = first.draw(np.random.default_rng([1, number]), SIZE)
        second, other = again.draw(np.random.default_rng([1, number]), SIZE)
        assert np.array_equal(image, second) and np.array_equal(target, other)
        assert image.shape == (1, *SIZE) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
        assert target.shape == (() if task == "covid" else SIZE) and target.dtype == np.int64
        again.draw(np.random.default_rng(9), SIZE)
    one, two = (first.draw(np.random.default_rng([1, n]), SIZE)[0] for n in (1, 2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("task", ["lung", "lesion"])
def test_a_cache_on_disk_gives_the_examples_of_memory(tmp_path: Path, task: str, source: Source) -> None:
    from carina.train.examples import open_source

    data = good_list(tmp_path, lesions=source is Source.LABELS)
    sources = [open_source(data, settings(task, source=source, cache_mb=mb)) for mb in (4096, 0, 0)]
    assert (tmp_path / ".data-cache").is_dir()
    drawn = [one.draw(np.random.default_rng(5), SIZE) for one in sources]
    for image, target in drawn[1:]:
        assert np.array_equal(image, drawn[0][0]) and np.array_equal(target, drawn[0][1])


def test_a_changed_image_is_prepared_anew(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    data = good_list(tmp_path)
    data = dataclasses.replace(data, training=data.training[:1])
    chosen = settings("lesion", cache_mb=0)
    before = open_source(data, chosen).draw(np.random.default_rng(5), SIZE)[0]
    write(np.clip(hu(0) + 300, -1024, 3000).astype(np.int16), tmp_path / "ct0.nii.gz")
    after = open_source(data, chosen).draw(np.random.default_rng(5), SIZE)[0]
    assert after.mean() > before.mean() + 0.1


def test_images_are_prepared_as_a_run_prepares_them(tmp_path: Path) -> None:
    from carina.train.examples import open_source
    from carina.volume.resample import reoriented, resample, respaced

    data = good_list(tmp_path)
    source = open_source(data, settings("lesion", spacing_mm=(0.8, 0.8, 5.0)))
    ((name, image, target),) = source.validation()
    grid = respaced(reoriented(GRID, "RAS"), (5.0, 0.8, 0.8))
    expected = np.clip((resample(hu(3), GRID, grid) + 1000) / 1500, 0, 1).transpose(2, 1, 0)
    truth = resample(lesion_labels(), GRID, grid, order=0).transpose(2, 1, 0)
    assert name == "ct3" and image[0].shape == expected.shape
    assert np.abs(image[0] - expected).max() < 1e-3
    assert np.count_nonzero(target != truth) < 0.15 * np.count_nonzero(truth)
    inner = resample(lesion_labels().astype(np.float32), GRID, grid).transpose(2, 1, 0)
    assert (target[inner == 1] == 1).all() and (target[inner == 0] == 0).all()


def test_an_entry_with_both_masks_serves_every_task(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    data = good_list(tmp_path)
    voxels = {}
    for task in ("lung", "lesion"):
        ((_, _, target),) = open_source(data, settings(task, spacing_mm=None)).validation()
        voxels[task] = np.count_nonzero(target)
    assert voxels == {"lung": np.count_nonzero(lung_labels()), "lesion": np.count_nonzero(lesion_labels())}


@pytest.mark.parametrize("order", ["default", "naturecomm"])
def test_the_classifier_is_shown_in_training_what_a_run_shows_it(tmp_path: Path, order: str) -> None:
    from carina.infer.classify import network_input
    from carina.models.bundle import Covid, Order
    from carina.train.examples import open_source

    source = open_source(good_list(tmp_path), settings("covid", order=order, margin_voxels=5))
    ((_, image, target),) = source.validation()
    volume, lung = (
        Volume(hu=hu(3), grid=GRID, uid="x"),
        Mask(labels=lung_labels(), grid=GRID, names={1: "lung"}, uid="x"),
    )
    spec = Covid(
        order=Order(order), size=SIZE, margin_voxels=5, orientation="RAS", window_hu=(-1000.0, 500.0), **_rest_of(Covid)
    )
    assert np.abs(image[0] - network_input(volume, lung, spec)).max() < 1e-3
    assert int(target) == 1


def _rest_of(spec: type) -> dict[str, object]:
    known = {"labels": {0: "non-COVID", 1: "COVID"}}
    return {key: value for key, value in known.items() if key in spec.__struct_fields__}


def test_positive_patches_hold_the_lesion(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    data = good_list(tmp_path)
    for positive, at_least, at_most in ((1.0, 12, 12), (0.0, 0, 12)):
        source = open_source(data, settings("lesion", positive=positive, patches=(Patch(shape=(9, 9, 3)),)))
        centres = [int(source.draw(np.random.default_rng(n), (9, 9, 3))[1].any()) for n in range(12)]
        assert at_least <= sum(centres) <= at_most
    assert sum(centres) < 12


def test_classes_are_drawn_in_equal_shares(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    source = open_source(good_list(tmp_path), settings("covid"))
    drawn = [int(source.draw(np.random.default_rng(n), SIZE)[1]) for n in range(60)]
    assert 20 <= sum(drawn) <= 40  # one entry in three is ill


def test_masks_turn_with_their_image(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    data = good_list(tmp_path)
    marked = np.where(lesion_labels() > 0, np.int16(450), np.int16(-950))
    marked[0, 0, 0] = 900
    for number in range(3):
        write(marked, tmp_path / f"ct{number}.nii.gz")
    turning = Augment(flip=0.9, rotate=0.9, rot90=0.9, zoom=0.9)
    source = open_source(data, settings("lesion", positive=1.0, augment=turning))
    for number in range(6):
        image, target = source.draw(np.random.default_rng(number), SIZE)
        found, truth = image[0] > 0.5, target == 1
        assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.7


def test_who_is_left_out_or_ill_is_never_drawn(tmp_path: Path) -> None:
    from carina.train.examples import SyntheticSource, open_source

    data = _change(good_list(tmp_path, lesions=False), "training", 2, label=(1,))
    source = open_source(data, settings("lesion", source=Source.SYNTHETIC, leave_out=("p0",)))
    assert isinstance(source, SyntheticSource)
    assert [case.name for case in source.training] == ["ct1"] and [case.name for case in source.held] == ["ct3"]
    with pytest.raises(BadConfig, match="no training entry is left"):
        open_source(data, settings("lesion", leave_out=("p0", "p1", "p2")))
    with pytest.raises(BadConfig, match="no training entry has lungs free of disease"):
        open_source(data, settings("covid", source=Source.SYNTHETIC, leave_out=("p0", "p1")))


def test_validation_is_the_same_every_time_and_holds_disease(tmp_path: Path) -> None:
    from carina.train.examples import open_source

    for task in ("lesion", "lung", "covid"):
        source = open_source(good_list(tmp_path, lesions=False), settings(task, source=Source.SYNTHETIC))
        first, again = list(source.validation()), list(source.validation())
        assert [name for name, _, _ in first] == [name for name, _, _ in again] and first
        for (_, image, target), (_, second, other) in zip(first, again, strict=True):
            assert np.array_equal(image, second) and np.array_equal(target, other)
        values = np.unique(np.concatenate([target.ravel() for _, _, target in first])).tolist()
        assert values == [0, 1]
