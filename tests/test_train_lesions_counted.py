"""Where each lesion counts in the loss, whatever its size: what is added, and how examples number their lesions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("monai", reason="the train extra is not installed")

from carina.cases.case import Case, resample_case
from carina.synth.phantom import chest_phantom
from carina.train.losses import HARD, LESION, missed_of_lesions
from carina.train.objective import loss_function
from carina.train.settings import Loss
from carina.train.synthetic import SyntheticSource
from data_lists import settings

SHAPE = (16, 96, 96)


def two_examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of lesions, and what is found of them: of 8 voxels and of 1 in the first, of 4 in the second."""
    numbers = torch.zeros((2, 4, 4, 2), dtype=torch.long)
    numbers[0, :2, :2], numbers[0, 3, 3, 0], numbers[1, 0, :, 0] = 1, 2, 1
    found = torch.zeros(numbers.shape)
    found[0, :2, :2], found[1, 0, :2, 0] = 1.0, 1.0
    return numbers, found


def test_a_small_lesion_that_is_missed_counts_as_a_large_one_does() -> None:
    numbers, found = two_examples()
    assert float(missed_of_lesions(found, numbers)) == pytest.approx((0 + 1 + 0.5) / 3)
    assert float(missed_of_lesions(found, numbers * 0)) == 0


def test_what_is_missed_is_added_as_often_as_the_settings_say() -> None:
    numbers, found = two_examples()
    target, logits = LESION * numbers + (numbers > 0), 40 * torch.stack([1 - found, found], dim=1)
    plain, counted = (float(loss_function(Loss.DICE_CE, lesion_weight=w)(logits, target)) for w in (0.0, 3.0))
    assert counted - plain == pytest.approx(1.5)
    assert plain == pytest.approx(float(loss_function(Loss.DICE_CE)(logits, target % LESION)))


def test_lesions_are_numbered_where_each_counts_and_nothing_else_changes() -> None:
    phantom = chest_phantom(shape=(64, 128, 128), lesions=0, seed=3)
    case = resample_case(Case(name="a", volume=phantom.volume, lung=phantom.lung))

    def drawn(seed: int, weight: float) -> np.ndarray:
        chosen = settings("lesion", source="synthetic", lesion_weight=weight)
        source = SyntheticSource(settings=chosen, training=[case], held=[])
        return source.draw(np.random.default_rng(seed), SHAPE)[1]

    counts = []
    for seed in range(12):
        plain, numbered = drawn(seed, 0.0), drawn(seed, 0.5)
        pieces, count = ndimage.label(plain % HARD == 1)
        assert plain.max() < LESION
        assert np.array_equal(numbered % LESION, plain)
        assert np.array_equal(numbered // LESION, pieces)
        counts.append(count)
    assert min(counts) == 0
    assert max(counts) > 1
