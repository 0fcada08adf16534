"""ai-lung: the lungs."""

from __future__ import annotations

from dataclasses import replace

from carina.measure.chest import check_chest
from carina.operators.networks import Networks
from carina.operators.ports import VolumePort
from carina.operators.segmented import TRITON_IMAGES, Segmented, lung_scene, segment_volume
from carina.pipeline.operator import Context, Operator
from carina.volume import Mask, Volume


def ai_lung(volume: VolumePort, *, networks: Networks, context: Context) -> Segmented:
    """Segment the lungs with the bundle that the settings name; a scan without lungs gives an empty mask."""
    mask = segment_volume(volume, "lung", networks, context)
    if mask.is_empty:
        context.warn("No lung was found.")
    else:
        mask = _checked(volume, mask, context)
    return Segmented(mask, lung_scene(volume, mask))


def _checked(volume: Volume, mask: Mask, context: Context) -> Mask:
    """The mask, with what speaks against its being the lungs of a chest among its warnings."""
    found = check_chest(volume, mask)
    said = (*found.refusals, *found.remarks)
    for sentence in said:
        context.warn(sentence)
    context.record("aerated_ml", round(found.aerated_ml, 2))
    return replace(mask, warnings=(*mask.warnings, *said))


OPERATOR = Operator(
    name="ai-lung",
    images=("clara/ai-lung", "carina/ai-lung"),
    function=ai_lung,
    inputs={"/input": "volume"},
    outputs={"/output": "segmentation", "/publish": "rendering", "/marked": "segmentation"},
    places={"/output": "lung", "/publish": "render"},
    services=TRITON_IMAGES,
)
