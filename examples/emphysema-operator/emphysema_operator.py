"""emphysema: how much of each lung is darker than emphysema's limit. For research use only. Not for diagnosis."""

from __future__ import annotations

from carina.measure.lungs import SIDE_NAMES, split_lungs
from carina.operators import MaskPort, VolumePort
from carina.pipeline import Context, Operator, Setting, Table


def emphysema(volume: VolumePort, lung: MaskPort, *, limit_hu: int = -950, context: Context) -> Table:
    """Measure the emphysema index of each lung: percent of its voxels below a limit, -950 HU unless told otherwise.

    The limit is for thin slices and a soft kernel at full inspiration (Gevenois et al., AJRCCM 1996;154:187-192).
    """
    sides = split_lungs(lung)
    rows = []
    for label, side in SIDE_NAMES.items():
        hu = volume.hu[sides.labels == label]
        if not hu.size:
            context.warn(f"No {side} was found, so it has no emphysema index.")
            continue
        percent = round(100 * float((hu < limit_hu).mean()), 3)
        lung_ml = round(hu.size * lung.grid.voxel_ml, 1)
        rows.append({"region": side, "lung_ml": lung_ml, "limit_hu": limit_hu, "emphysema_percent": percent})
    return Table(rows=rows, columns=("region", "lung_ml", "limit_hu", "emphysema_percent"), name="emphysema")


OPERATOR = Operator(
    name="emphysema",
    images=("example/emphysema",),
    function=emphysema,
    inputs={"/input": "volume", "/label_image": "lung"},
    outputs={"/output": ""},
    places={"/output": "emphysema"},
    variables={"LIMIT_HU": Setting(parameter="limit_hu", read=int, meaning="voxels below this count, in HU")},
)
