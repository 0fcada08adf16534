"""ai-lung: the lungs."""

from __future__ import annotations

from dataclasses import replace

from carina.measure.chest import check_chest
from carina.operators.networks import Networks
from carina.operators.ports import Scene, VolumePort
from carina.operators.segmented import BLUE, GREEN, TRITON_IMAGES, Segmented, segment_volume
from carina.pipeline.operator import Context, Operator
from carina.volume import Mask, Volume


def ai_lung(volume: VolumePort, *, networks: Networks, context: Context) -> Segmented:
    """Segment the lungs with the bundle that the settings name; a scan without lungs gives an empty mask."""
    mask = segment_volume(volume, "lung", networks, context)
    if mask.is_empty:
        context.warn("No lung was found.")
    else:
        mask = _checked(volume, mask, context)
    colours = dict(zip(sorted(mask.names), (BLUE, GREEN), strict=False))
    return Segmented(mask, Scene(volume=volume, shown=mask, layer="lung", order=1, colours=colours, opacity=0.25))


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
    outputs={"/output": "segmentation", "/publish": "rendering"},
    places={"/output": "lung", "/publish": "render"},
    services=TRITON_IMAGES,
)
