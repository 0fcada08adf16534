"""What a data list is read for: which of a case's masks counts, and what a case costs, depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Task(StrEnum):
    """What is learnt."""

    LUNG = "lung"
    LESION = "lesion"
    COVID = "covid"


class Targets(StrEnum):
    """Where targets come from: the data list's labels, or disease synthesised in lungs that are free of it."""

    LABELS = "labels"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a training asks of its data list.

    ``classes`` is how many values the network tells apart. ``learns_places`` says that a classifier is told where
    synthetic disease lies. ``leave_out`` names cases and patients that are not used. ``crop_shape`` ``(x, y, z)`` is
    a classifier's input; ``takes_bellies`` says that a scan without lungs, its mask empty, is of use; ``spacing_mm``
    ``(x, y, z)`` is that of labelled images, None keeps their own. Prepared cases of more than ``cache_mb`` are kept on
    disk. ``cache_rate`` is the share of cases that is kept in memory at most (as in MONAI's ``CacheDataset``).
    """

    task: Task
    source: Targets = Targets.LABELS
    classes: int = 2
    learns_places: bool = False
    takes_bellies: bool = False
    leave_out: tuple[str, ...] = ()
    crop_shape: tuple[int, int, int] = (192, 192, 64)
    spacing_mm: tuple[float, float, float] | None = (0.8, 0.8, 5.0)
    cache_mb: int = 4096
    cache_rate: float = 1.0

    @property
    def mask(self) -> str:
        """The mask that a training on labels reads: lesions to learn, else the lungs."""
        return "lesion" if self.task is Task.LESION else "lung"
