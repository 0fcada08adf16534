"""A classifier that is told where disease lies: what it is told counts, and nothing of it is published."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cases.case import Case, resample_case
from carina.cases.crops import LEAST_SHARE, crop, draw_crop
from carina.cases.datalist import write_datalist
from carina.cases.purpose import Targets, Task
from carina.errors import BadConfig
from carina.models.networks import COVID_NETWORK, build_network
from carina.train import configure
from carina.train.checkpoint import BEST, CHECKPOINT
from carina.train.examples import ExampleSource
from carina.train.fit import FitContext, Watch, fit
from carina.train.guide import BLOCKS, Guided, places, published
from carina.train.logs import TrainingProgress
from carina.train.losses import IGNORED
from carina.train.settings import Loss, Patch
from carina.train.sources import open_source
from carina.train.training import publish_folder, train
from carina.volume import Mask, Volume
from data_lists import GRID, good_list, hu, lung_labels, settings

SURE = 12.0
SHAPE = (16, 32, 32)


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DenseNet of the same parts, with a layer in each block instead of 6, 12, 24 and 16."""
    from monai.networks.nets import DenseNet

    made = functools.partial(DenseNet, init_features=8, growth_rate=4, block_config=(1, 1, 1, 1))
    monkeypatch.setattr("monai.networks.nets.DenseNet121", made)
    monkeypatch.setattr("carina.train.synthetic.VALIDATION_CROPS", 8)


@pytest.fixture(scope="module")
def chest() -> Case:
    labels = Mask(labels=lung_labels(), grid=GRID, names={1: "lung"}, uid="x")
    return resample_case(Case(name="chest", volume=Volume(hu=hu(0), grid=GRID, uid="x"), lung=labels))


def _target() -> torch.Tensor:
    target = torch.zeros((2, 16, 16, 16), dtype=torch.int64)
    target[0, :8, :8, :8] = 1
    return target


def _answers(*, where: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Right about the scans; of the first's eight cells, number ``where`` is said to be disease."""
    logits = torch.tensor([[-SURE, SURE], [SURE, -SURE]])
    cells = torch.full((2, 1, 2, 2, 2), -SURE)
    cells[0].view(-1)[where] = SURE
    return logits, [cells]


def test_the_right_place_costs_nothing_and_a_wrong_one_does() -> None:
    assert float(places(_answers(where=0), _target())) < 1e-3
    assert float(places(_answers(where=7), _target())) > 1


def test_places_that_are_ignored_cost_nothing() -> None:
    target = _target()
    target[0, 8:, 8:, 8:] = IGNORED
    logits, [cells] = _answers(where=0)
    cells[0, 0, 1, 1, 1] = SURE
    cells.requires_grad_()
    loss = places((logits, [cells]), target)
    loss.backward()
    assert float(loss.detach()) < 1e-3 and cells.grad is not None and float(cells.grad[0, 0, 1, 1, 1]) == 0


def test_disease_that_fills_a_part_of_a_cell_is_a_share() -> None:
    target = torch.zeros((1, 16, 16, 16), dtype=torch.int64)
    target[0, :4] = 1
    logits = torch.tensor([[-SURE, SURE]])

    def loss(share: float) -> float:
        return float(places((logits, [torch.logit(torch.full((1, 1, 1, 1, 1), share))]), target))

    assert loss(0.25) < min(loss(0.15), loss(0.35))


def test_in_evaluation_a_guided_network_is_the_one_inside() -> None:
    torch.manual_seed(1)
    inner = build_network(COVID_NETWORK)
    guided, image = Guided(inner), torch.rand(2, 1, 64, 64, 32)
    logits, told = guided.train()(image)
    assert logits.shape == (2, 2)
    assert [tuple(one.shape) for one in told] == [(2, 1, 8, 8, 4), (2, 1, 4, 4, 2)] and len(told) == len(BLOCKS)
    with torch.inference_mode():
        assert torch.equal(guided.eval()(image), inner.eval()(image))
    assert published(guided.state_dict()).keys() == inner.state_dict().keys()
    plain = {"classifier.weight": torch.ones(1)}
    assert published(plain) == plain


@pytest.mark.usefixtures("few_layers")
def test_heads_are_trained_and_not_published(tmp_path: Path) -> None:
    chosen = settings(
        "covid",
        source=Targets.SYNTHETIC,
        network=dict(COVID_NETWORK),
        loss=Loss.CROSS_ENTROPY_PLACES,
        patches=(Patch(shape=(32, 32, 32)),),
        steps=2,
        validate_every=2,
        average=0.5,
        workers=0,
    )
    data = good_list(tmp_path, lesions=False)
    write_datalist(data, data.file)
    folder = tmp_path / "out"
    bundle = train(data.file, chosen, folder)
    assert bundle is not None
    kept = torch.load(folder / CHECKPOINT, weights_only=True)
    assert any(name.startswith("heads.") for name in kept["network"])
    assert not any(name.startswith("heads.") for name in torch.load(folder / BEST, weights_only=True)["weights"])
    (folder / BEST).unlink()
    assert publish_folder(folder).onnx.is_file()


@pytest.mark.usefixtures("few_layers")
def test_an_interrupted_training_ends_with_the_heads_and_weights_of_a_whole_one(tmp_path: Path) -> None:
    chosen = settings(
        "covid",
        source=Targets.SYNTHETIC,
        loss=Loss.CROSS_ENTROPY_PLACES,
        patches=(Patch(shape=(32, 32, 32)),),
        steps=3,
        validate_every=9,
        save_every=1,
        workers=0,
        deterministic=True,
    )
    source = open_source(good_list(tmp_path, lesions=False), chosen)

    def trained(folder: str, watch: Watch) -> dict[str, torch.Tensor]:
        torch.manual_seed(2)
        fit(build_network(COVID_NETWORK), _Unjudged(source), chosen, tmp_path / folder, FitContext(watch=watch))
        return dict(torch.load(tmp_path / folder / CHECKPOINT, weights_only=True)["network"])

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    whole = trained("whole", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        trained("halves", stop)
    halves = trained("halves", lambda _: None)
    assert any(name.startswith("heads.") for name in whole)
    assert whole.keys() == halves.keys() and all(torch.equal(whole[name], halves[name]) for name in whole)


class _Unjudged:
    """A source without validation cases."""

    def __init__(self, source: ExampleSource) -> None:
        self.draw = source.draw

    def validation(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        yield from ()


def test_examples_say_where_disease_lies(tmp_path: Path) -> None:
    data = good_list(tmp_path, lesions=False)
    chosen = settings("covid", source=Targets.SYNTHETIC, loss=Loss.CROSS_ENTROPY_PLACES)
    source = open_source(data, chosen)
    targets = [source.draw(np.random.default_rng(n), SHAPE)[1] for n in range(12)]
    assert all(target.shape == SHAPE for target in targets)
    assert {bool((target == 1).any()) for target in targets} == {True, False}
    assert all(np.asarray(target).shape == () for _, _, target in source.validation())


def test_labels_do_not_say_where_disease_lies() -> None:
    with pytest.raises(BadConfig, match="cross-entropy-places with source labels: it needs source synthetic"):
        configure.load_train_settings(Task.COVID, preset="default", changes=["loss=cross-entropy-places"])


def test_disease_is_large_enough_to_be_a_lesson(chest: Case) -> None:
    drawn = [draw_crop([chest], SHAPE, np.random.default_rng(seed)) for seed in range(30)]
    shares = [one.lesion.sum() / one.lung.sum() for one in drawn if one.ill]
    assert 8 <= len(shares) <= 22 and min(shares) > LEAST_SHARE
    halves = [{bool(side.any()) for side in np.array_split(one.lesion, 2, axis=2)} for one in drawn if one.ill]
    assert {True, False} in halves  # some have it in one lung only


def test_without_a_generator_a_crop_is_the_lungs_box(chest: Case) -> None:
    one, again = crop(chest, SHAPE), crop(chest, SHAPE)
    assert one.hu.shape == SHAPE and np.array_equal(one.hu, again.hu) and not one.ill
    assert SHAPE[0] > len(chest.hu) and one.hu.min() >= chest.hu.min()  # no air beyond the first and the last slice
    assert np.allclose(
        np.prod(one.spacing_mm) * one.lung.sum(), np.prod(chest.spacing_mm) * chest.lungs.sum(), rtol=0.1
    )
