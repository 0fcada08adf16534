"""A loader's process that the whole group's SIGTERM reaches ends as at Ctrl-C, and is no error of the training's."""

from __future__ import annotations

import os
import signal

import torch
from torch.utils.data import DataLoader, Dataset

from carina.train.fit import end_as_interrupted


class Ending(Dataset[torch.Tensor]):  # type: ignore[misc]
    """An example whose process is told to end."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return torch.zeros(1)


def test_a_loader_that_is_told_to_end_is_not_killed() -> None:
    loader = DataLoader(Ending(), batch_size=None, num_workers=1, worker_init_fn=end_as_interrupted)
    waiting = iter(loader)
    (worker,) = waiting._workers
    worker.join(60)
    assert worker.exitcode == 0
    waiting._shutdown_workers()
