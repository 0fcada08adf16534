"""Training cases: a chest CT with its lung labels at training resolution, kept as ``.npz`` files.

Arrays are ``(z, y, x)`` with z towards superior, y towards anterior and x towards the right of the patient (the
array order of RAS); ``to_network`` gives the ``(n, 1, x, y, z)`` that the networks take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from carina.errors import BadSeries
from carina.train.lung_labels import label_lungs

IN_PLANE_MM = 0.8
"""In-plane spacing of the segmentation networks' input (their model cards)."""
SLICE_MM = 5.0
"""Slice spacing of the segmentation networks' input (their model cards)."""

HU = npt.NDArray[np.int16]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One training case.

    ``hu`` is ``(z, y, x)`` int16, RAS order, 0.8 mm in-plane and the source's own slice spacing; ``lung`` is uint8
    0 or 1 on the same voxels; ``spacing_mm`` is ``(z, y, x)``. ``lesion`` (uint8, 0 or 1) is there where the truth is
    known (phantoms); None means that the lungs are free of what the networks are to find.
    """

    name: str
    hu: HU
    lung: Labels
    spacing_mm: tuple[float, float, float]
    lesion: Labels | None = None

    @cached_property
    def gas(self) -> Labels:
        """Gas that the body encloses outside the lungs (airways, bowel): uint8, 0 or 1, on the same voxels."""
        in_plane = np.zeros((3, 3, 3), dtype=bool)
        in_plane[1] = ndimage.generate_binary_structure(2, 1)
        tissue, _ = ndimage.label(ndimage.binary_opening(self.hu > -300))
        sizes = np.bincount(tissue.ravel())
        sizes[0] = 0
        pieces, count = ndimage.label(tissue != sizes.argmax(), structure=in_plane)
        outside = np.zeros(count + 1, dtype=bool)
        for face in (pieces[:, 0], pieces[:, -1], pieces[:, :, 0], pieces[:, :, -1]):
            outside[np.unique(face)] = True
        gas = ~outside[pieces] & (self.hu < -600) & (self.lung == 0)
        return np.asarray(ndimage.binary_opening(gas, in_plane[1:2]), dtype=np.uint8)


def prepare_case(name: str, hu_lps: npt.NDArray[np.int16], spacing_mm: Sequence[float]) -> Case:
    """Bring an axial volume to training resolution and label its lungs.

    ``hu_lps`` is ``(z, y, x)`` int16 HU with z towards superior, y posterior, x left; ``spacing_mm`` likewise.
    """
    ras = np.clip(hu_lps[:, ::-1, ::-1], -1024, 3071)
    zoom = (1.0, spacing_mm[1] / IN_PLANE_MM, spacing_mm[2] / IN_PLANE_MM)
    slices = [ndimage.zoom(s.astype(np.float32), zoom[1:], order=1) for s in ras]
    hu = np.rint(np.stack(slices)).astype(np.int16)
    spacing = (float(spacing_mm[0]), IN_PLANE_MM, IN_PLANE_MM)
    return Case(name=name, hu=hu, lung=label_lungs(hu, spacing), spacing_mm=spacing)


def save_case(case: Case, folder: Path) -> Path:
    """Write ``case`` as ``folder/name.npz`` and return the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}.npz"
    known: dict[str, Any] = {} if case.lesion is None else {"lesion": case.lesion}
    np.savez(path, hu=case.hu, lung=case.lung, spacing_mm=np.array(case.spacing_mm), **known)
    return path


def load_case(path: Path) -> Case:
    """Read one case written by `save_case`.

    Raises:
        BadSeries: the file lacks one of ``hu``, ``lung``, ``spacing_mm``.
    """
    with np.load(path) as stored:
        missing = {"hu", "lung", "spacing_mm"} - set(stored.files)
        if missing:
            raise BadSeries("case.incomplete", f"{path} lacks {sorted(missing)}; make it again with `prepare`.")
        z, y, x = (float(v) for v in stored["spacing_mm"])
        lesion = stored["lesion"] if "lesion" in stored.files else None
        return Case(name=path.stem, hu=stored["hu"], lung=stored["lung"], spacing_mm=(z, y, x), lesion=lesion)


def load_cases(folder: Path, *, leave_out: Iterable[str] = ()) -> list[Case]:
    """Read every case of a folder except those named in ``leave_out``.

    Raises:
        BadSeries: the folder holds no case.
    """
    dropped = set(leave_out)
    paths = [p for p in sorted(folder.glob("*.npz")) if p.stem not in dropped]
    if not paths:
        raise BadSeries("case.none", f"{folder} holds no case (*.npz); run `python -m carina.train prepare` first.")
    return [load_case(path) for path in paths]


def to_slices(case: Case, slice_mm: float = SLICE_MM) -> tuple[HU, Labels]:
    """The whole case at ``slice_mm`` (linear between slices, as at inference): HU and lung labels, ``(z, y, x)``."""
    count = max(1, int(np.floor((case.hu.shape[0] - 1) * case.spacing_mm[0] / slice_mm)) + 1)
    at = np.arange(count) * slice_mm / case.spacing_mm[0]
    low = np.minimum(at.astype(int), case.hu.shape[0] - 1)
    high = np.minimum(low + 1, case.hu.shape[0] - 1)
    part = (at - low)[:, None, None]
    hu = case.hu[low] * (1 - part) + case.hu[high] * part
    lung = case.lung[low] * (1 - part) + case.lung[high] * part
    return np.rint(hu).astype(np.int16), (lung >= 0.5).astype(np.uint8)


def scale(hu: npt.NDArray[np.generic], window_hu: tuple[float, float]) -> npt.NDArray[np.float32]:
    """HU to [0, 1] over ``window_hu``, clipped, float32."""
    low, high = window_hu
    scaled: npt.NDArray[np.float32] = np.clip((hu.astype(np.float32) - low) / (high - low), 0.0, 1.0)
    return scaled


def to_network(arrays: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
    """Stack ``(z, y, x)`` arrays to the networks' ``(n, 1, x, y, z)``."""
    return np.stack([a.transpose(2, 1, 0)[None] for a in arrays])
