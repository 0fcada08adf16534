"""What a run found, as frozen values with units in their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class RegionFindings:
    """Lung and lesion in one region.

    ``region`` is one of ``lungs``, ``left lung``, ``right lung``, and for each lung ``... upper third``,
    ``... middle third``, ``... lower third`` (thirds of its height; left out where less than half of the lungs' height
    is in view). Volumes in ml, ratio in percent of the lung's
    volume (0 where there is no lung), mean HU None where there is no voxel or no CT was given.
    """

    region: str
    lung_ml: float
    lesion_ml: float
    ratio_percent: float
    lung_mean_hu: float | None = None
    lesion_mean_hu: float | None = None


@dataclass(frozen=True, kw_only=True)
class LesionSite:
    """One connected lesion. ``number`` 1 is the largest.

    ``region`` is the third of a lung that holds most of it, as in ``RegionFindings``; the lung alone where thirds are
    not told. ``index`` ``(z, y, x)`` is a
    voxel of it: in the slice (along the array's first axis) with most of it, the one nearest to its middle there.
    """

    number: int
    lesion_ml: float
    region: str
    index: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeySlice:
    """An axial slice worth looking at.

    ``index`` is the slice's z index in the volume; ``hu`` is ``(y, x)`` int16, None where no CT was given;
    ``lung`` and ``lesion`` are ``(y, x)`` bool; ``spacing_mm`` is ``(y, x)``. ``saliency`` is ``(y, x)`` float32, the
    change of a class's probability or a part of its log-odds, None where it was not asked for.
    """

    index: int
    spacing_mm: tuple[float, float]
    lung: npt.NDArray[np.bool_]
    lesion: npt.NDArray[np.bool_]
    hu: npt.NDArray[np.int16] | None = None
    saliency: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RatioFindings:
    """The lesion to lung volume ratio, whole and by region (``regions[0]`` is ``lungs``), with slices to show.

    ``lesions`` are those that ``lesion_count`` counts, one by one; empty where only a text was read.
    ``lesion_made_by`` and ``lung_made_by`` name the masks' bundles (``name version sha256``), empty where unknown.
    """

    uid: str
    regions: tuple[RegionFindings, ...]
    lesion_count: int
    lesions: tuple[LesionSite, ...] = ()
    lesion_made_by: str = ""
    lung_made_by: str = ""
    key_slices: tuple[KeySlice, ...] = field(default=())
    warnings: tuple[str, ...] = ()

    @property
    def made_by(self) -> tuple[str, ...]:
        """The bundles of the lesion and the lung mask, those that are known."""
        return tuple(name for name in (self.lesion_made_by, self.lung_made_by) if name)


ASKED_CLASS = "COVID-19"
"""The class that is asked about."""


def in_class_order(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Probabilities in the order in which they are shown, whatever their values: COVID-19 first."""
    return dict(sorted(probabilities.items(), key=lambda item: item[0] != ASKED_CLASS))


class SaliencyMethod(StrEnum):
    """How a saliency was found: by hiding place after place, or as what each place adds to the answer."""

    OCCLUSION = "occlusion"
    ACTIVATION = "activation"


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyFindings:
    """What the probability of class ``label`` depends on: by how much it falls when a place is hidden, or its log-odds.

    ``lowest`` and ``highest`` are the range over the whole scan (negative: the place speaks against the class),
    ``blocks`` how many places along ``(x, y, z)`` were looked at one by one; ``key_slices`` carry the map. Values are
    changes of the probability (occlusion) or parts of the log-odds (activation).
    """

    label: str
    lowest: float
    highest: float
    blocks: tuple[int, int, int]
    method: SaliencyMethod = SaliencyMethod.OCCLUSION
    key_slices: tuple[KeySlice, ...] = field(default=())


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """Class probabilities by name (``COVID-19``, ``non-COVID-19``), summing to 1, with slices to show.

    ``not_computed`` says in a sentence why there is no result (no lung found); ``probabilities`` is then empty.
    ``limits`` are the bundle's own sentences on what its probabilities can't tell.
    ``saliency`` is None where it was switched off.
    """

    uid: str
    probabilities: Mapping[str, float]
    made_by: str = ""
    key_slices: tuple[KeySlice, ...] = field(default=())
    warnings: tuple[str, ...] = ()
    not_computed: str = ""
    limits: tuple[str, ...] = ()
    saliency: SaliencyFindings | None = None
