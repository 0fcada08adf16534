"""From DICOM series and phantoms to the cases that training draws from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from carina.dicom.find import find_series
from carina.dicom.read import read_volume
from carina.testing.phantom import Phantom, chest_phantom
from carina.train.data import Case, prepare_case, save_case
from carina.volume import Volume

PHANTOM_SHAPE = (64, 480, 480)
"""The phantom at the networks' spacing: 5 x 0.8 x 0.8 mm."""
FIRST_PHANTOM_SEED = 101
"""Far from the seeds of demonstrations and tests."""


def prepare(data: Path, out: Path, *, phantoms: int = 3) -> Iterator[Case]:
    """Make and save a case for each series folder in ``data``, then ``phantoms`` cases with lesions of known place.

    Yields each case once it is saved, so that a caller can show progress and draw it.
    """
    for folder in sorted(p for p in data.iterdir() if p.is_dir()):
        for found in find_series(folder):
            if found.source is not None:
                yield _saved(series_case(folder.name, read_volume(found.source)), out)
                break
    for seed in range(FIRST_PHANTOM_SEED, FIRST_PHANTOM_SEED + phantoms):
        yield _saved(phantom_case(chest_phantom(shape=PHANTOM_SHAPE, seed=seed)), out)


def series_case(name: str, volume: Volume) -> Case:
    """The case of a CT volume (axial, ``(z, y, x)`` towards superior, posterior, left)."""
    return prepare_case(name, volume.hu, volume.grid.spacing_mm)


def phantom_case(phantom: Phantom) -> Case:
    """The case of a phantom, with its true lung and lesion masks."""
    z, y, x = phantom.volume.grid.spacing_mm
    return Case(
        name=f"phantom-{phantom.volume.uid[-12:]}",
        hu=phantom.volume.hu[:, ::-1, ::-1].copy(),
        lung=(phantom.lung.labels > 0)[:, ::-1, ::-1].astype(np.uint8),
        spacing_mm=(z, y, x),
        lesion=(phantom.lesion.labels > 0)[:, ::-1, ::-1].astype(np.uint8),
    )


def _saved(case: Case, out: Path) -> Case:
    save_case(case, out)
    return case
