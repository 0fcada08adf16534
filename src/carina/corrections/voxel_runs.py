"""Sets of voxels as runs: ``start, length, start, length, ...`` of places in a ``(z, y, x)`` array in C order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carina.errors import BadConfig
from carina.volume.arrays import Flags

Places = npt.NDArray[np.int64]


def runs_of(places: Places) -> list[int]:
    """The runs of places, which must rise."""
    if not places.size:
        return []
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    starts = places[np.concatenate(([0], breaks))]
    lengths = np.diff(np.concatenate(([0], breaks, [places.size])))
    flat: list[int] = np.stack((starts, lengths), axis=1).ravel().tolist()
    return flat


def runs_of_flags(flags: Flags) -> list[int]:
    """The runs of what is set."""
    return runs_of(np.flatnonzero(flags.reshape(-1)))


def places_of(runs: Sequence[int], size: int) -> Places:
    """The places in runs, each once, rising.

    Raises:
        BadConfig: ``corrections.runs``, they are no runs of an array of ``size`` voxels.
    """
    flat = np.asarray(runs, np.int64)
    if flat.size % 2:
        raise BadConfig("corrections.runs", f"{flat.size} numbers are no runs; expected start and length of each.")
    starts, lengths = flat[0::2], flat[1::2]
    if flat.size and ((starts < 0) | (lengths < 1) | (lengths > size) | (starts > size - lengths)).any():
        raise BadConfig("corrections.runs", f"a run lies outside the image, which has {size} voxels.")
    if int(lengths.sum()) > size:
        raise BadConfig("corrections.runs", f"the runs hold more voxels than the image, which has {size}.")
    firsts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - firsts, lengths)
    return np.unique(places)
