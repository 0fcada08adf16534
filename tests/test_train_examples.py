"""Cases made from images and masks, and the examples that training draws from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from carina.cases.case import Case, at_slices, native_labels, resample_case, to_network
from carina.cases.datalist import DataList, ListedCase
from carina.cases.purpose import Targets
from carina.errors import BadConfig
from carina.train.settings import Augment, Patch
from carina.volume import Mask, Volume
from carina.volume.resample import reorient
from data_lists import GRID, SHAPE, good_list, hu, lesion_labels, lung_labels, settings, write


def _change(data: DataList, part: str, number: int, **keys: object) -> DataList:
    items: list[ListedCase] = list(getattr(data, part))
    items[number] = msgspec.structs.replace(items[number], **keys)
    parts: dict[str, Any] = {part: tuple(items)}
    return dataclasses.replace(data, **parts)


# Cases


def _volume(seed: int = 0) -> tuple[Volume, Mask]:
    mask = Mask(labels=lung_labels(), grid=GRID, names={1: "lung"}, uid="x")
    return Volume(hu=hu(seed), grid=GRID, uid="x"), mask


def test_a_case_does_not_depend_on_how_voxels_are_stored() -> None:
    volume, mask = _volume()
    first = resample_case(Case(name="a", volume=volume, lung=mask))
    voxels, grid = reorient(volume.hu, GRID, "SRA")
    labels, _ = reorient(mask.labels, GRID, "SRA")
    turned = resample_case(
        Case(
            name="a",
            volume=Volume(hu=np.ascontiguousarray(voxels), grid=grid, uid="x"),
            lung=Mask(labels=np.ascontiguousarray(labels), grid=grid, names={1: "lung"}, uid="x"),
        )
    )
    assert first.hu.shape == (12, 80, 96) and first.spacing_mm == (5.0, 0.8, 0.8)
    assert np.array_equal(first.hu, turned.hu) and np.array_equal(first.lungs, turned.lungs)


def test_a_case_grows_towards_anterior_and_right() -> None:
    volume, mask = _volume()
    case = resample_case(Case(name="a", volume=volume, lung=mask))
    bone = np.argwhere(case.hu > 500)
    assert bone[:, 1].max() < 10  # posterior in the volume, so at the low end here


def test_labels_go_back_to_the_image_they_came_from() -> None:
    volume, mask = _volume()
    back = native_labels(resample_case(Case(name="a", volume=volume, lung=mask)).lungs, volume)
    assert np.count_nonzero(back != mask.labels) < 0.02 * np.count_nonzero(mask.labels)


def test_slices_are_interpolated_between_neighbours() -> None:
    ramp = np.repeat(np.array([0, 100, 200, 300], dtype=np.int16), 4).reshape(4, 2, 2)
    assert at_slices(ramp, 2.0, 3.0)[:, 0, 0].tolist() == [0, 150, 300]


# Examples

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

SIZE = (32, 32, 8)
PATCH = SIZE[::-1]
"""The same as an array, ``(z, y, x)``."""
ALL = Augment(flip=0.5, rotate=0.5, rot90=0.5, shift=0.5, gamma=0.5, noise=0.5, zoom=0.5)


@pytest.mark.parametrize("source", Targets)
@pytest.mark.parametrize("task", ["lung", "lesion", "covid"])
def test_an_example_depends_on_its_generator_alone(tmp_path: Path, task: str, source: Targets) -> None:
    from carina.train.sources import open_source

    chosen = settings(task, source=source, augment=ALL)
    data = good_list(tmp_path, lesions=source is Targets.LABELS)
    first, again = open_source(data, chosen), open_source(data, chosen)
    for number in (3, 1, 2):
        image, target = first.draw(np.random.default_rng([1, number]), PATCH)
        second, other = again.draw(np.random.default_rng([1, number]), PATCH)
        assert np.array_equal(image, second) and np.array_equal(target, other)
        assert image.shape == PATCH and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
        assert target.shape == (() if task == "covid" else PATCH) and target.dtype == np.int64
        again.draw(np.random.default_rng(9), PATCH)
    one, two = (first.draw(np.random.default_rng([1, n]), PATCH)[0] for n in (1, 2))
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("source", Targets)
@pytest.mark.parametrize("task", ["lung", "lesion"])
def test_a_cache_on_disk_gives_the_examples_of_memory(tmp_path: Path, task: str, source: Targets) -> None:
    from carina.train.sources import open_source

    data = good_list(tmp_path, lesions=source is Targets.LABELS)
    sources = [open_source(data, settings(task, source=source, cache_mb=mb)) for mb in (4096, 0, 0)]
    assert (tmp_path / ".data-cache").is_dir()
    drawn = [one.draw(np.random.default_rng(5), PATCH) for one in sources]
    for image, target in drawn[1:]:
        assert np.array_equal(image, drawn[0][0]) and np.array_equal(target, drawn[0][1])


@pytest.mark.parametrize("task", ["lung", "lesion"])
@pytest.mark.parametrize("cache_mb", [4096, 0])
def test_what_a_list_ignores_no_example_teaches(tmp_path: Path, task: str, cache_mb: int) -> None:
    from carina.train.losses import IGNORED
    from carina.train.sources import open_source

    data = good_list(tmp_path, lesions=False)
    write(np.ones(SHAPE, dtype=np.uint8), tmp_path / "ignore.nii.gz")
    training, validation = (
        tuple(msgspec.structs.replace(item, ignore_image="ignore.nii.gz") for item in part)
        for part in (data.training, data.validation)
    )
    ignoring = dataclasses.replace(data, training=training, validation=validation)
    chosen = settings(task, source=Targets.SYNTHETIC, cache_mb=cache_mb)
    plain, blind = (
        np.stack([source.draw(np.random.default_rng(seed), PATCH)[1] for seed in range(6)])
        for source in (open_source(data, chosen), open_source(ignoring, chosen))
    )
    assert not (plain == IGNORED).any() and (blind == IGNORED).mean() > 0.2
    for _, _, target in open_source(ignoring, chosen).validation():
        assert (target == IGNORED).all()


def test_a_changed_image_is_prepared_anew(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    data = good_list(tmp_path)
    data = dataclasses.replace(data, training=data.training[:1])
    chosen = settings("lesion", cache_mb=0)
    before = open_source(data, chosen).draw(np.random.default_rng(5), PATCH)[0]
    write(np.clip(hu(0) + 300, -1024, 3000).astype(np.int16), tmp_path / "ct0.nii.gz")
    after = open_source(data, chosen).draw(np.random.default_rng(5), PATCH)[0]
    assert after.mean() > before.mean() + 0.1


def test_images_are_prepared_as_a_run_prepares_them(tmp_path: Path) -> None:
    from carina.train.sources import open_source
    from carina.volume.resample import reoriented, resample, respaced

    data = good_list(tmp_path)
    source = open_source(data, settings("lesion", spacing_mm=(0.8, 0.8, 5.0)))
    ((name, image, target),) = source.validation()
    grid = respaced(reoriented(GRID, "RAS"), (5.0, 0.8, 0.8))
    expected = np.clip((resample(hu(3), GRID, grid) + 1000) / 1500, 0, 1)
    truth = resample(lesion_labels(), GRID, grid, order=0)
    assert name == "ct3" and image.shape == expected.shape
    assert np.abs(image - expected).max() < 1e-3
    assert np.count_nonzero(target != truth) < 0.15 * np.count_nonzero(truth)
    inner = resample(lesion_labels().astype(np.float32), GRID, grid)
    assert (target[inner == 1] == 1).all() and (target[inner == 0] == 0).all()


def test_a_case_with_both_masks_serves_every_task(tmp_path: Path) -> None:
    from carina.train.sources import open_source

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
    from carina.train.sources import open_source

    source = open_source(good_list(tmp_path), settings("covid", order=order, margin_voxels=5))
    ((_, image, target),) = source.validation()
    volume, lung = (
        Volume(hu=hu(3), grid=GRID, uid="x"),
        Mask(labels=lung_labels(), grid=GRID, names={1: "lung"}, uid="x"),
    )
    spec = Covid(
        order=Order(order),
        size=SIZE,
        margin_voxels=5,
        orientation="RAS",
        window_hu=(-1000.0, 500.0),
        labels={0: "non-COVID", 1: "COVID"},
    )
    assert np.abs(to_network([image])[0, 0] - network_input(volume, lung, spec)).max() < 1e-3
    assert int(target) == 1


def test_positive_patches_hold_the_lesion(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    data = good_list(tmp_path)
    for positive, at_least, at_most in ((1.0, 12, 12), (0.0, 0, 12)):
        source = open_source(data, settings("lesion", positive=positive, patches=(Patch(shape=(9, 9, 3)),)))
        centres = [int(source.draw(np.random.default_rng(n), (3, 9, 9))[1].any()) for n in range(12)]
        assert at_least <= sum(centres) <= at_most
    assert sum(centres) < 12


def test_classes_are_drawn_in_equal_shares(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    source = open_source(good_list(tmp_path), settings("covid"))
    drawn = [int(source.draw(np.random.default_rng(n), PATCH)[1]) for n in range(60)]
    assert 20 <= sum(drawn) <= 40  # one case in three is ill


def test_masks_turn_with_their_image(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    data = good_list(tmp_path)
    marked = np.where(lesion_labels() > 0, np.int16(450), np.int16(-950))
    marked[0, 0, 0] = 900
    for number in range(3):
        write(marked, tmp_path / f"ct{number}.nii.gz")
    turning = Augment(flip=0.9, rotate=0.9, rot90=0.9, zoom=0.9)
    source = open_source(data, settings("lesion", positive=1.0, augment=turning))
    for number in range(6):
        image, target = source.draw(np.random.default_rng(number), PATCH)
        found, truth = image > 0.5, target == 1
        assert 2 * np.count_nonzero(found & truth) / (found.sum() + truth.sum()) > 0.7


def test_who_is_left_out_or_ill_is_never_drawn(tmp_path: Path) -> None:
    from carina.train.sources import open_source
    from carina.train.synthetic import SyntheticSource

    data = _change(good_list(tmp_path, lesions=False), "training", 2, label=(1,))
    source = open_source(data, settings("lesion", source=Targets.SYNTHETIC, leave_out=("p0",)))
    assert isinstance(source, SyntheticSource)
    assert [case.name for case in source.training] == ["ct1"] and [case.name for case in source.held] == ["ct3"]
    with pytest.raises(BadConfig, match="no training case is left"):
        open_source(data, settings("lesion", leave_out=("p0", "p1", "p2")))
    with pytest.raises(BadConfig, match="no training case has lungs free of disease"):
        open_source(data, settings("covid", source=Targets.SYNTHETIC, leave_out=("p0", "p1")))


def test_validation_is_the_same_every_time_and_holds_disease(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    for task in ("lesion", "lung", "covid"):
        source = open_source(good_list(tmp_path, lesions=False), settings(task, source=Targets.SYNTHETIC))
        first, again = list(source.validation()), list(source.validation())
        assert [name for name, _, _ in first] == [name for name, _, _ in again] and first
        for (_, image, target), (_, second, other) in zip(first, again, strict=True):
            assert np.array_equal(image, second) and np.array_equal(target, other)
        values = np.unique(np.concatenate([target.ravel() for _, _, target in first])).tolist()
        assert values == [0, 1]


def test_lesion_networks_are_validated_on_severe_disease_too(tmp_path: Path) -> None:
    from carina.train.sources import open_source

    names = {}
    for task in ("lesion", "lung"):
        source = open_source(good_list(tmp_path, lesions=False), settings(task, source=Targets.SYNTHETIC))
        targets = {name: target for name, _, target in source.validation()}
        names[task] = list(targets)
        if task == "lesion":
            assert 0 < np.count_nonzero(targets["ct3-severe"]) != np.count_nonzero(targets["ct3"])
    assert names == {"lesion": ["ct3", "ct3-severe"], "lung": ["ct3"]}
