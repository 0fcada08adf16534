"""ai-lung: the lungs."""

from __future__ import annotations

from carina.operators.networks import Networks
from carina.operators.ports import Scene, VolumePort
from carina.operators.segmented import BLUE, GREEN, TRITON_IMAGES, Segmented, segment_volume
from carina.pipeline.operator import Context, Operator


def ai_lung(volume: VolumePort, *, networks: Networks, context: Context) -> Segmented:
    """Segment the lungs with the bundle that the settings name; a scan without lungs gives an empty mask."""
    mask = segment_volume(volume, "lung", networks, context)
    if mask.is_empty:
        context.warn("No lung was found.")
    colours = dict(zip(sorted(mask.names), (BLUE, GREEN), strict=False))
    return Segmented(mask, Scene(volume=volume, shown=mask, layer="lung", order=1, colours=colours, opacity=0.25))


OPERATOR = Operator(
    name="ai-lung",
    images=("clara/ai-lung", "carina/ai-lung"),
    function=ai_lung,
    inputs={"/input": "volume"},
    outputs={"/output": "segmentation", "/publish": "rendering"},
    places={"/output": "lung", "/publish": "render"},
    services=TRITON_IMAGES,
)
