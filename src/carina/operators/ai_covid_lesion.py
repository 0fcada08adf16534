"""ai-covid-lesion: COVID-19 lesions."""

from __future__ import annotations

from carina.operators.needed import NETWORK_IMAGES
from carina.operators.networks import Networks
from carina.operators.ports import VolumePort
from carina.operators.segmented import TRITON_IMAGES, Segmented, lesion_scene, segment_volume
from carina.pipeline.operator import Context, Operator


def ai_covid_lesion(volume: VolumePort, *, networks: Networks, context: Context) -> Segmented:
    """Segment COVID-19 lesions with the bundle that the settings name; none found gives an empty mask."""
    mask = segment_volume(volume, "lesion", networks, context)
    if mask.is_empty:
        context.record("finding", "No lesion was found.")
    return Segmented(mask, lesion_scene(volume, mask))


OPERATOR = Operator(
    name="ai-covid-lesion",
    images=NETWORK_IMAGES["lesion"],
    function=ai_covid_lesion,
    inputs={"/input": "volume"},
    outputs={"/output": "segmentation", "/publish": "rendering", "/marked": "segmentation"},
    places={"/output": "lesion", "/publish": "render"},
    services=TRITON_IMAGES,
)
