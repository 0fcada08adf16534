"""Classification: the crop, the resize, the two orders, and what has no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carina.config import Precision, RuntimeSettings
from carina.errors import BadConfig, BadSeries
from carina.infer.classify import classifier, classify, network_input, probabilities
from carina.infer.familiar import too_little_marked, unlike_training
from carina.infer.runtime import open_runtime
from carina.models.bundle import Covid
from carina.volume.grid import Grid
from carina.volume.volume import Mask, Volume
from tiny_networks import CLASSIFIER, mean_bundle, threshold_bundle

F32 = RuntimeSettings(precision=Precision.F32)
GRID = Grid(shape=(30, 40, 50), spacing_mm=(2.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
BOX = (slice(10, 20), slice(10, 30), slice(15, 35))


def case(hu: int = -500, outside: int = 500) -> tuple[Volume, Mask]:
    voxels = np.full(GRID.shape, outside, dtype=np.int16)
    voxels[5:25, 5:35, 10:40] = hu
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[BOX] = 1
    labels[12, 15:20, 20:30] = 0
    return Volume(hu=voxels, grid=GRID, uid="1"), Mask(labels=labels, grid=GRID, names={1: "lung"}, uid="1")


def test_the_probabilities_are_known(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "mean")
    found = classify(*case(), bundle, open_runtime(bundle))
    assert found == pytest.approx({"no": 1 / (1 + np.exp(2)), "yes": 1 / (1 + np.exp(-2))}, abs=1e-5)
    ready = mean_bundle(tmp_path / "ready", output="probabilities")
    found = classify(*case(), ready, lambda patches: np.array([[0.2, 0.8]], dtype=np.float32))
    assert found == pytest.approx({"no": 0.2, "yes": 0.8})


def test_the_crop_is_the_box_and_five_voxels(tmp_path: Path) -> None:
    volume, lung = case()
    spec = mean_bundle(tmp_path / "mean").carina
    assert isinstance(spec, Covid)
    image = network_input(volume, lung, spec)
    assert image.shape == (16, 16, 8)
    assert np.allclose(image, 0.5), "the box and its margin hold -500 HU only, and nothing is masked away"
    wider = mean_bundle(tmp_path / "wider", margin_voxels=6).carina
    assert isinstance(wider, Covid)
    assert network_input(volume, lung, wider).max() > 0.5


def test_the_resize_is_torchs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    _, lung = case()
    volume = Volume(hu=np.random.default_rng(0).integers(-1000, 0, GRID.shape).astype(np.int16), grid=GRID, uid="1")
    spec = mean_bundle(tmp_path / "mean", orientation="LPS", size=[20, 12, 44]).carina
    assert isinstance(spec, Covid)
    crop = torch.tensor(volume.hu[5:25, 5:35, 10:40].astype(np.float32))[None, None]
    theirs = torch.nn.functional.interpolate(crop, (44, 12, 20), mode="trilinear", align_corners=False)[0, 0]
    assert np.allclose(network_input(volume, lung, spec), theirs.numpy().transpose(2, 1, 0) / 1000 + 1, atol=1e-4)


def test_the_two_orders_differ_where_hu_leave_the_window(tmp_path: Path) -> None:
    volume, lung = case()
    volume.hu[:, ::2] = 2000
    volume.hu[:, 1::2] = -1000
    specs = [mean_bundle(tmp_path / order, order=order).carina for order in ("default", "naturecomm")]
    first, second = (network_input(volume, lung, spec) for spec in specs if isinstance(spec, Covid))
    assert second.mean() > first.mean() + 0.1


def test_the_network_sees_its_own_orientation(tmp_path: Path) -> None:
    volume, lung = case()
    volume.hu[:, :, :25] = -1000
    ras = mean_bundle(tmp_path / "ras").carina
    las = mean_bundle(tmp_path / "las", orientation="LAS").carina
    assert isinstance(ras, Covid) and isinstance(las, Covid)
    right = network_input(volume, lung, ras)
    assert right[:7].mean() == pytest.approx(0.5) and right[9:].mean() == 0
    assert np.allclose(right[::-1], network_input(volume, lung, las))


def test_no_lung_is_said(tmp_path: Path) -> None:
    volume, lung = case()
    empty = Mask(labels=np.zeros_like(lung.labels), grid=GRID, names={1: "lung"}, uid="1")
    bundle = mean_bundle(tmp_path / "mean")
    with pytest.raises(BadSeries, match="No lung was found in this series") as caught:
        classify(volume, empty, bundle, open_runtime(bundle))
    assert caught.value.code == "lung.none"


def test_a_mask_of_another_series_is_refused(tmp_path: Path) -> None:
    volume, lung = case()
    moved = Grid(shape=GRID.shape, spacing_mm=GRID.spacing_mm, origin_mm=(0.0, 0.0, 1.0))
    other = Mask(labels=lung.labels, grid=moved, names={1: "lung"}, uid="2")
    with pytest.raises(BadSeries, match="expected a mask on the volume's grid"):
        classify(volume, other, mean_bundle(tmp_path / "mean"), lambda patches: patches)


def test_a_segmentation_bundle_does_not_classify(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not classify, its task is lung"):
        classify(*case(), threshold_bundle(tmp_path / "tiny"), lambda patches: patches)
    assert CLASSIFIER["task"] == "covid"


# Calibration, and what is not classified


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_divides_the_log_odds(temperature: float, tmp_path: Path) -> None:
    plain, calibrated = mean_bundle(tmp_path / "plain"), mean_bundle(tmp_path / "warm", temperature=temperature)
    odds = [classify(*case(), bundle, open_runtime(bundle, F32)) for bundle in (plain, calibrated)]
    before, after = (float(np.log(found["yes"] / found["no"])) for found in odds)
    assert after == pytest.approx(before / temperature, rel=1e-4) and sum(odds[1].values()) == pytest.approx(1)


def test_probabilities_are_calibrated_like_scores(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "given", output="probabilities", temperature=2.0)
    found = probabilities(
        np.zeros((1, 1, 2, 2, 2), np.float32), classifier(bundle), lambda _: np.array([[0.1, 0.9]], np.float32)
    )
    assert found[0, 1] == pytest.approx(3 / 4), "odds of 9 become 3"


def test_a_shift_is_added_to_the_log_odds(tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "shifted", temperature=2.0, shifts={"1": 0.75})
    found = classify(*case(), bundle, open_runtime(bundle, F32))
    assert np.log(found["yes"] / found["no"]) == pytest.approx(2 / 2 + 0.75, abs=1e-4)
    with pytest.raises(BadConfig, match=r"shifts \[2\] must be of labels \[0, 1\]"):
        mean_bundle(tmp_path / "wrong", shifts={"2": 1.0})


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_temperature_is_positive(wrong: float, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"temperature .* must be a positive number"):
        mean_bundle(tmp_path / "wrong", temperature=wrong)


FAMILIAR = {"median_hu": [-920, -650], "dense_share": 0.2, "gas_share": 0.3}


@pytest.mark.parametrize(
    ("hu", "said"),
    [
        ([-850] * 10, ()),
        ([-850] * 8 + [40] * 2, ()),
        ([-850] * 7 + [40] * 3, ("30 % of the lungs are denser than -250 HU; the classifier's limit is 20 %.",)),
        ([-850] * 6 + [-980] * 4, ("40 % of the lungs are below -950 HU; the classifier's limit is 30 %.",)),
        ([-500] * 10, ("The lungs' median is -500 HU; the classifier's limits are -920 to -650.",)),
    ],
)
def test_lungs_unlike_training_are_told_by_what_is_unlike(hu: list[int], said: tuple[str, ...], tmp_path: Path) -> None:
    bundle = mean_bundle(tmp_path / "knowing", familiar=FAMILIAR)
    grid = Grid(shape=(1, 2, 10), spacing_mm=(5.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    volume = Volume(hu=np.array([[hu, [1000] * 10]], dtype=np.int16), grid=grid, uid="1.2")
    lung = Mask(labels=np.array([[[1] * 10, [0] * 10]], dtype=np.uint8), grid=grid, names={1: "lung"}, uid="1.2")
    assert unlike_training(volume, lung, bundle) == said
    assert unlike_training(volume, lung, mean_bundle(tmp_path / "ignorant")) == ()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"median_hu": [-600, -900]}, r"familiar median_hu \(-600.0, -900.0\) must grow"),
        ({"dense_share": 1.5}, "familiar shares 1.5 and 0.3 must lie between 0 and 1"),
    ],
)
def test_what_is_familiar_is_checked(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        mean_bundle(tmp_path / "wrong", familiar=FAMILIAR | keys)


LITTLE = {"none": 0.01, "enough": 0.1}


def marked_of_a_hundred(marked: int, *, beside: int = 0) -> tuple[Mask, Mask]:
    """Lesions in lungs of a hundred voxels, and ``beside`` voxels marked outside of them, far away."""
    grid = Grid(shape=(1, 20, 10), spacing_mm=(5.0, 5.0, 5.0), origin_mm=(0.0, 0.0, 0.0))
    lung, lesion = (np.zeros(grid.shape, dtype=np.uint8) for _ in range(2))
    lung[0, :10] = 1
    lesion.reshape(-1)[:marked] = 1
    lesion[0, 15:, :].reshape(-1)[:beside] = 1
    names = {1: "marked"}
    return Mask(labels=lesion, grid=grid, names=names, uid="1.2"), Mask(labels=lung, grid=grid, names=names, uid="1.2")


@pytest.mark.parametrize(("marked", "is_little"), [(0, False), (1, False), (2, True), (9, True), (10, False)])
def test_little_disease_lies_between_nothing_and_enough(marked: int, is_little: bool, tmp_path: Path) -> None:  # noqa: FBT001
    bundle = mean_bundle(tmp_path / "seeing", little_disease=LITTLE)
    said = too_little_marked(*marked_of_a_hundred(marked, beside=9), bundle)
    sentence = f"Little disease: {marked:.2f} % of the lungs are marked as lesion. Up to 1 % counts as nothing marked; "
    assert said == (f"{sentence}from 10 % on the classifier's probability says something." if is_little else "")
    assert too_little_marked(*marked_of_a_hundred(marked), mean_bundle(tmp_path / "silent")) == ""


@pytest.mark.parametrize("keys", [{"none": 0.2}, {"none": -0.1}, {"enough": 1.5}])
def test_the_limits_of_little_disease_are_checked(keys: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"little_disease none .* and enough .* must grow from 0 to 1"):
        mean_bundle(tmp_path / "wrong", little_disease=LITTLE | keys)
