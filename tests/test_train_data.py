"""Data lists, their checks, and the examples drawn from them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from carina.cases.checks import DataReport, check_data
from carina.cases.datalist import DataList, ListedCase, read_datalist, with_fold, without, write_datalist
from carina.cases.purpose import Targets
from carina.errors import BadConfig
from carina.train.settings import Loss, Patch
from data_lists import GRID, SHAPE, good_list, hu, lesion_labels, lung_labels, purpose, write


def _list(folder: Path, content: object) -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


# Data lists


def test_the_published_form_is_read(tmp_path: Path) -> None:
    image = "/data/LIDC-IDRI-0095_1.nii.gz"
    entry = {"image": image, "label_image": "Mask/0095.nii.gz", "label": [1]}
    data = read_datalist(_list(tmp_path, {"training": [entry], "validation": []}))
    assert data.training == (ListedCase(image=image, label_image="Mask/0095.nii.gz", label=(1,)),)
    assert data.path(data.training[0].image) == Path(image)
    assert data.path("Mask/0095.nii.gz") == tmp_path / "Mask/0095.nii.gz"
    assert data.training[0].name == "LIDC-IDRI-0095_1"


def test_a_decathlon_list_is_read(tmp_path: Path) -> None:
    content = {"name": "Lungs", "numTraining": 1, "training": [{"image": "a.nii.gz", "label": "b.nii.gz"}], "test": []}
    data = read_datalist(_list(tmp_path, content))
    assert data.training == (ListedCase(image="a.nii.gz", label_image="b.nii.gz"),) and data.validation == ()


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
        ({"training": [{"image": "a"}, {"image": "b", "lable": [0]}]}, "case 2 of training: unknown key 'lable'"),
        ({"training": ["a.nii.gz"]}, "case 1 of training: expected an object"),
        ({"training": [], "validation": [{"label": [0]}]}, "case 1 of validation.*image"),
        ({"training": [{"image": "a", "label": [0.5]}]}, "case 1 of training.*label"),
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
    for text in ("{", "[" * 100_000):
        (tmp_path / "bad.json").write_text(text, encoding="utf-8")
        with pytest.raises(BadConfig, match=r"bad.json: is no JSON"):
            read_datalist(tmp_path / "bad.json")


def _pool(patients: int) -> DataList:
    items = tuple(
        ListedCase(image=f"{n}-{k}.nii.gz", patient=f"p{n}", label=(int(n < patients // 2),))
        for n in range(patients)
        for k in range(2)
    )
    return DataList(file=Path("pool.json"), training=items[:5], validation=items[5:])


def test_folds_cover_every_case_once_and_split_no_patient() -> None:
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


def test_cases_are_left_out_by_name_or_patient() -> None:
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
        for source in Targets:
            free = good_list(tmp_path / "free", lesions=False)
            report = check_data(data if source is Targets.LABELS else free, purpose(task, source=source))
            assert report.problems == ()
            if not (task == "covid" and source is Targets.LABELS):
                assert report.warnings == ()


def _change(data: DataList, part: str, number: int, **keys: object) -> DataList:
    items: list[ListedCase] = list(getattr(data, part))
    items[number] = msgspec.structs.replace(items[number], **keys)
    parts: dict[str, Any] = {part: tuple(items)}
    return dataclasses.replace(data, **parts)


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
    "image missing": (_missing, r"training case 2, ct1.nii.gz: no such file"),
    "mask no image": (_unreadable, r"training case 3, lesion2.nii.gz: is no NIfTI file"),
    "image cut short": (_cut_short, r"training case 3, ct2.nii.gz: is cut short"),
    "mask of another shape": (
        _other_shape,
        r"case 1, lesion0.nii.gz: has 11 x 40 x 48 voxels \(z, y, x\), its image ct0.nii.gz has 12 x 40 x 48",
    ),
    "mask of another grid": (_other_grid, r"case 1, lesion0.nii.gz: lies elsewhere than its image ct0.nii.gz"),
    "empty lungs": (_empty_lungs, r"case 2, lung1.nii.gz: the lung mask is empty"),
    "a picture": (
        _values(lambda: np.where(hu(0) > 0, np.uint8(255), np.uint8(0))),
        r"ct0.nii.gz: 8-bit values can't be HU",
    ),
    "0 to 255": (_values(lambda: np.clip(hu(0), 0, 255)), r"ct0.nii.gz: values run from 0 to 255"),
    "no intercept": (_values(lambda: (hu(0) + 1100).astype(np.uint16)), r"ct0.nii.gz: values run from \d+ to"),
    "scaled": (_values(lambda: hu(0) / np.float32(1000)), r"ct0.nii.gz: values run from -1 to 1, as in a mask"),
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
    report = check_data(make(tmp_path, good_list(tmp_path)), purpose("lesion"))
    assert [p for p in report.problems if p] and _says(report.problems, words)


def _says(sentences: tuple[str, ...], words: str) -> bool:
    import re

    return any(re.search(words, sentence) for sentence in sentences)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    for make in (_missing, _unreadable, _empty_lungs, _other_grid):
        data = make(tmp_path, data)
    report = check_data(data, purpose("lesion"))
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
    assert _says(check_data(data, purpose("covid")).problems, words)


def test_a_class_that_nobody_shows_is_a_problem_in_training_only(tmp_path: Path) -> None:
    data = _change(good_list(tmp_path), "training", 1, label=(0,))
    report = check_data(data, purpose("covid"))
    assert _says(report.problems, "no training case has label 1")
    assert _says(report.warnings, "no validation case has label 0")


def test_what_may_be_right_is_a_warning(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    write(np.zeros(SHAPE, dtype=np.uint8), tmp_path / "lesion0.nii.gz")
    write(lung_labels()[:, ::-1, :] * 0 + np.uint8(hu(1) > 500), tmp_path / "lung1.nii.gz")
    write(hu(0), tmp_path / "ct2.nii.gz")
    report = check_data(data, purpose("lesion", leave_out=("p9",)))
    assert report.problems == ()
    for words in (
        "lesion0.nii.gz: the lesion mask is empty; right for a healthy patient",
        "lung1.nii.gz: what the lung mask covers has a median of 9.. HU",
        "ct2.nii.gz: is in training twice, also as ct0.nii.gz",
        "leave_out names 'p9'",
    ):
        assert _says(report.warnings, words), words


def test_what_is_ignored_must_fit_and_is_named_where_nothing_ignores_it(tmp_path: Path) -> None:
    data = _change(good_list(tmp_path, lesions=False), "training", 0, ignore_image="ignore.nii.gz")
    write(lesion_labels(), tmp_path / "ignore.nii.gz")
    synthetic = purpose("lesion", source=Targets.SYNTHETIC)
    told = purpose("covid", source=Targets.SYNTHETIC, loss=Loss.CROSS_ENTROPY_PLACES)
    assert check_data(data, synthetic).warnings == check_data(data, told).warnings == ()
    for unused in (purpose("lung"), purpose("covid", source=Targets.SYNTHETIC)):
        assert _says(check_data(data, unused).warnings, "ignore.nii.gz: is not used")
    write(lesion_labels()[1:], tmp_path / "ignore.nii.gz")
    assert _says(check_data(data, synthetic).problems, "training case 1, ignore.nii.gz: has 11 x 40 x 48 voxels")


def test_disease_of_unknown_place_is_not_drawn_into(tmp_path: Path) -> None:
    data = _change(good_list(tmp_path, lesions=False), "training", 0, label=(1,))
    synthetic = purpose("lesion", source=Targets.SYNTHETIC)
    assert _says(check_data(data, synthetic).warnings, "ct0.nii.gz: shows disease .label 1")
    marked = check_data(good_list(tmp_path), purpose("covid", source=Targets.SYNTHETIC))
    assert _says(marked.problems, "every training case shows disease")
    ill = dataclasses.replace(data, training=data.training[:1])
    assert _says(check_data(ill, synthetic).problems, "every training case shows disease")


def test_left_out_cases_are_not_looked_at(tmp_path: Path) -> None:
    data = _missing(tmp_path, good_list(tmp_path))
    assert check_data(data, purpose("lesion", leave_out=("p1",))).problems == ()


def test_the_size_of_the_cache_is_that_of_the_prepared_voxels(tmp_path: Path) -> None:
    data = good_list(tmp_path)
    voxels = SHAPE[0] * SHAPE[1] * SHAPE[2]
    assert _mb(data, spacing_mm=None) == pytest.approx(4 * voxels * 5 / 1e6)
    assert _mb(data, spacing_mm=(0.8, 0.8, 5.0)) == pytest.approx(4 * voxels * 4 * 5 / 1e6)
    covid = check_data(data, purpose("covid", patches=(Patch(shape=(192, 192, 64)),)))
    assert covid.cache_mb == pytest.approx(4 * 192 * 192 * 64 * 4 / 1e6)


def _mb(data: DataList, **changes: object) -> float:
    report: DataReport = check_data(data, purpose("lesion", **changes))
    return report.cache_mb
