"""What a fine-tuning keeps of the weights it started from."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from carina.cases.purpose import Task
from carina.errors import BadConfig
from carina.train.configure import load_train_settings
from carina.train.fit import FitContext, fit
from carina.train.logs import TrainingProgress
from test_train_fit import Bright, changed, network, same

KEEP = 0.25


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_what_is_published_lies_between_the_start_and_what_was_trained(average: float, tmp_path: Path) -> None:
    settings = {"steps": 12, "validate_every": 12, "average": average}
    started = network(norm=False)
    start = copy.deepcopy(started.state_dict())
    trained = fit(network(norm=False), Bright(), changed(**settings), tmp_path / "all").weights
    context = FitContext(start=start)
    blended = fit(started, Bright(), changed(**settings, keep_start=KEEP), tmp_path / "part", context).weights
    for name, value in trained.items():
        assert not torch.allclose(value, start[name], atol=1e-4), "it learned something"
        assert torch.allclose(blended[name], (1 - KEEP) * value + KEEP * start[name], atol=1e-6)


def test_a_resumed_one_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    settings = changed(steps=12, validate_every=4, save_every=3, log_every=1, keep_start=KEEP)
    start = copy.deepcopy(network().state_dict())
    whole = fit(network(), Bright(), settings, tmp_path / "whole", FitContext(start=start))

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 7:
            raise KeyboardInterrupt("by hand")

    with pytest.raises(KeyboardInterrupt, match="by hand"):
        fit(network(), Bright(), settings, tmp_path / "parts", FitContext(start=start, watch=stop))
    resumed = fit(network(), Bright(), settings, tmp_path / "parts", FitContext(start=start))
    assert same(resumed.weights, whole.weights) and resumed.metric == whole.metric


def test_a_share_is_below_one() -> None:
    with pytest.raises(BadConfig, match=r"keep_start 1.0 must be at least 0 and below 1"):
        load_train_settings(Task.LESION, changes=["keep_start=1.0"])
