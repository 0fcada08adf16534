"""The three recipes: what is drawn, which network learns it, with which loss and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from carina.models import networks
from carina.train import losses
from carina.train.crops import draw_crop
from carina.train.data import Case, scale
from carina.train.fit import Draw, Example, FitSettings
from carina.train.patches import Shape, draw_lesion_patch, draw_lung_patch

LUNG_WINDOW_HU = (-1500.0, 500.0)
LESION_WINDOW_HU = (-1000.0, 500.0)
HELD_OUT = "covidctmd-p002"
"""The one series with COVID-19: lesion and classification networks never see it in training."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One network's training: ``verb`` starts it, ``name`` is its bundle's.

    ``shape`` is the training input, ``(z, y, x)``; ``leave_out`` names held-out cases.
    """

    verb: str
    name: str
    network: Mapping[str, Any]
    draw: Callable[[Sequence[Case], Shape, np.random.Generator], Example]
    loss: Callable[[Tensor, Tensor], Tensor]
    shape: Shape
    settings: FitSettings
    leave_out: tuple[str, ...] = ()

    def drawer(self, cases: Sequence[Case]) -> Draw:
        """The function that draws one example from ``cases``."""
        return partial(self.draw, cases, self.shape)


def _lung(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Example:
    hu, lung, hard = draw_lung_patch(cases, shape, rng)
    return _example(scale(hu, LUNG_WINDOW_HU), lung + losses.HARD * hard)


def _lesion(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Example:
    hu, lesion = draw_lesion_patch(cases, shape, rng)
    return _example(scale(hu, LESION_WINDOW_HU), lesion)


def _covid(cases: Sequence[Case], shape: Shape, rng: np.random.Generator) -> Example:
    hu, ill = draw_crop(cases, shape, rng)
    return scale(hu, LESION_WINDOW_HU).transpose(2, 1, 0)[None].copy(), np.asarray(int(ill), dtype=np.int64)


def _example(image: Any, mask: Any) -> Example:
    """To the networks' order ``(x, y, z)``."""
    return image.transpose(2, 1, 0)[None].copy(), mask.transpose(2, 1, 0).astype(np.int64)


RECIPES: Mapping[str, Recipe] = {
    "lung": Recipe(
        verb="lung",
        name="lung-ahnet",
        network=networks.LUNG,
        draw=_lung,
        loss=losses.dice_ce,
        shape=(32, 160, 160),
        settings=FitSettings(steps=1300, batch=2, peak_rate=2e-3, bfloat16=True),
    ),
    "lesion": Recipe(
        verb="lesion",
        name="lesion-segresnet",
        network=networks.LESION,
        draw=_lesion,
        loss=losses.dice_ce,
        shape=(16, 128, 128),
        settings=FitSettings(steps=2400, batch=2, peak_rate=2e-3),
        leave_out=(HELD_OUT,),
    ),
    "covid": Recipe(
        verb="covid",
        name="covid-densenet",
        network=networks.COVID,
        draw=_covid,
        loss=losses.class_ce,
        shape=(32, 96, 96),
        settings=FitSettings(steps=1000, batch=4, peak_rate=4e-4, weight_decay=1e-5, bfloat16=True),
        leave_out=(HELD_OUT,),
    ),
}
