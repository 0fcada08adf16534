"""What a training is shown: examples, where they come from, and how they become a network's tensors.

An example is the input ``(z, y, x)``, float32 in [0, 1], and its target ``(z, y, x)``, int64, or ``()`` for
classification that is not told where disease lies. It depends on its generator alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carina.cases.case import to_network
from carina.cases.sampling import Shape

Example = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
NamedExample = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]]


class ExampleSource(Protocol):
    """Where examples come from."""

    def draw(self, rng: np.random.Generator, shape: Shape) -> Example:
        """One training example of ``shape`` ``(z, y, x)``."""
        ...

    def validation(self) -> Iterator[NamedExample]:
        """Name, input and target of each validation example, the same ones every time; whole volumes for masks."""
        ...


def to_tensors(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Inputs ``(n, 1, x, y, z)`` and targets ``(n, x, y, z)`` or ``(n,)``: examples at the network's door."""
    inputs, targets = ([example[part] for example in examples] for part in (0, 1))
    target = to_network(targets)[:, 0] if targets[0].ndim else np.stack(targets)
    return torch.from_numpy(to_network(inputs)), torch.from_numpy(target)
