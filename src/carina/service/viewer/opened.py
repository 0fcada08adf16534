"""A run as its pages need it: slices of the CT as they are asked for, masks read once and kept for what follows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from carina.api.result import open_run
from carina.errors import BadConfig
from carina.measure.findings import LesionSite
from carina.measure.lesion_sites import lesion_sites
from carina.operators.stored_findings import read_sites
from carina.pipeline.folder import MANIFEST
from carina.report.saliency import LEAST_SCALE
from carina.volume.planes import Sliced, open_volume, read_mask_bits
from carina.volume.volume import Mask, Volume

MOST_SHARE = 127

RUNS_KEPT = 2
"""Runs that stay open: two masks of 300 slices take 20 MB, and 310 more once CT and masks were wanted as a whole."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """The CT of a run and its masks on the same grid, slice by slice; a mask is None where the run made none."""

    volume: Sliced
    lung: Sliced | None
    lesion: Sliced | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeImages:
    """The same with every voxel in memory."""

    volume: Volume
    lung: Mask | None
    lesion: Mask | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyShares:
    """By how much a probability falls where a place is hidden: as shares of the largest change, ``MOST_SHARE`` of it.

    ``shares`` is ``(z, y, x)``, int8; ``lowest`` and ``highest`` are the range of the change of the probability.
    """

    shares: npt.NDArray[np.int8]
    lowest: float
    highest: float


class OpenedRun:
    """A run whose images are read by the first who asks for them; several threads may."""

    def __init__(self, folder: Path) -> None:
        self.run = open_run(folder)
        self.drawing = threading.Lock()
        """Held while a slice is drawn: of three at once, all would come last."""
        self._lock = threading.Lock()
        self._making: dict[str, threading.RLock] = {}
        self._known: dict[str, Any] = {}

    @property
    def has_images(self) -> bool:
        """Whether the run stored a CT; one that failed early did not."""
        return any((self.run.folder / "volume").glob("*.mhd"))

    @property
    def images(self) -> Images:
        """The CT and the masks, to be looked at.

        Raises:
            BadConfig: ``run.no-image``, the run stored no CT.
            BadSeries: a file is damaged.
        """
        return self.once("images", self._look)

    @property
    def whole(self) -> WholeImages:
        """The CT and the masks, to be measured.

        Raises:
            BadConfig, BadSeries: as ``images``.
        """
        return self.once("whole", self._read)

    @property
    def lesions(self) -> tuple[LesionSite, ...]:
        """The lesions one by one, the largest first; none where a mask is missing."""
        return self.once("lesions", self._sites)

    @property
    def saliency(self) -> SaliencyShares | None:
        """What the classification depends on; None where the run stored no map.

        Raises:
            BadSeries: a file is damaged.
        """
        return self.once("saliency", self._saliency)

    def once(self, name: str, make: Callable[[], _Value]) -> _Value:
        """What ``make`` gave the first time that this name was asked for, while others are made beside it."""
        with self._lock:
            making = self._making.setdefault(name, threading.RLock())
        with making:
            if name not in self._known:
                self._known[name] = make()
            value: _Value = self._known[name]
            return value

    def _look(self) -> Images:
        run = self.run
        return Images(
            volume=open_volume(run.image("volume")),
            lung=_if_stored(lambda: read_mask_bits(run.image("lung"))),
            lesion=_if_stored(lambda: read_mask_bits(run.image("lesion"))),
        )

    def _read(self) -> WholeImages:
        run = self.run
        return WholeImages(volume=run.volume, lung=_if_stored(lambda: run.lung), lesion=_if_stored(lambda: run.lesion))

    def _saliency(self) -> SaliencyShares | None:
        try:
            found = self.run.saliency
        except BadConfig as error:
            if error.code == "run.no-image":
                return None
            raise
        finally:
            self.run.__dict__.pop("saliency", None)  # single precision takes four times what is kept
        lowest, highest = float(found.values.min()), float(found.values.max())
        limit = max(highest, -lowest, LEAST_SCALE)
        shares = np.empty(found.values.shape, np.int8)
        for index, plane in enumerate(found.values):
            shares[index] = np.rint(plane * (MOST_SHARE / limit))
        return SaliencyShares(shares=shares, lowest=lowest, highest=highest)

    def _sites(self) -> tuple[LesionSite, ...]:
        stored = self.run.stored("volume-ratio.json")
        if "lesions" in stored:
            return read_sites(stored["lesions"])
        images = self.whole  # of a run by Carina 0.2 or earlier
        if images.lung is None or images.lesion is None:
            return ()
        return lesion_sites(images.lesion, images.lung)


def _if_stored(read: Callable[[], _Value]) -> _Value | None:
    try:
        return read()
    except BadConfig as error:
        if error.code == "run.no-image":
            return None
        raise


class RunShelf:
    """The runs that were asked for last; one that was run again since is opened anew."""

    def __init__(self, kept: int = RUNS_KEPT) -> None:
        self.kept = kept
        self._lock = threading.Lock()
        self._runs: OrderedDict[tuple[Path, int], OpenedRun] = OrderedDict()

    def open(self, folder: Path) -> OpenedRun:
        """The run in a folder.

        Raises:
            BadConfig: the folder holds no manifest, or a damaged one.
        """
        try:
            changed = (folder / MANIFEST).stat().st_mtime_ns
        except OSError:
            changed = 0
        key = (folder.resolve(), changed)
        with self._lock:
            if key not in self._runs:
                self._runs[key] = OpenedRun(folder)
            self._runs.move_to_end(key)
            while len(self._runs) > self.kept:
                self._runs.popitem(last=False)
            return self._runs[key]
