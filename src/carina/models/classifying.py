"""What a bundle says of a classifier beside its network: its saliency, the lungs that it knows, what is too little."""

from __future__ import annotations

import msgspec


class Saliency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a classifier's saliency is made: the input is hidden block by block.

    ``blocks`` are counted along each network axis ``(x, y, z)``, at most one a voxel; each costs a run of the network.
    ``label`` is the class whose probability is watched, ``batch`` how many inputs the network is given at once.
    """

    blocks: tuple[int, int, int] = (4, 4, 4)
    label: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        if min(self.blocks) < 1 or self.batch < 1:
            raise ValueError(f"saliency blocks {self.blocks} and batch {self.batch} must be at least 1")


class Familiar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits around the lungs of a classifier's training; a scan outside of them is not classified.

    ``median_hu`` are the lowest and highest median of the lungs; ``dense_share`` is the most of them that may be denser
    than -250 HU, ``gas_share`` the most that may be gas (below -950 HU), both 0 to 1 (`infer.familiar`).
    """

    median_hu: tuple[float, float]
    dense_share: float
    gas_share: float

    def __post_init__(self) -> None:
        if not self.median_hu[0] < self.median_hu[1]:
            raise ValueError(f"familiar median_hu {self.median_hu} must grow")
        if not (0 <= self.dense_share <= 1 and 0 <= self.gas_share <= 1):
            raise ValueError(f"familiar shares {self.dense_share} and {self.gas_share} must lie between 0 and 1")


class LittleDisease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much of the lungs must be marked as lesion, 0 to 1, for a classifier's probability to say something.

    Up to ``none`` counts as nothing marked, which is an answer of its own; from ``enough`` on the classifier sees the
    disease. What lies between is not classified (`infer.familiar`).
    """

    none: float
    enough: float

    def __post_init__(self) -> None:
        if not 0 <= self.none < self.enough <= 1:
            raise ValueError(f"little_disease none {self.none} and enough {self.enough} must grow from 0 to 1")
