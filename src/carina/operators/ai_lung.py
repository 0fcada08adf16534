"""ai-lung: the lungs."""

from __future__ import annotations

from dataclasses import replace

from carina.measure.chest import chest_of
from carina.operators.needed import NETWORK_IMAGES
from carina.operators.networks import Networks
from carina.operators.ports import VolumePort
from carina.operators.segmented import TRITON_IMAGES, Segmented, lung_scene, segment_volume
from carina.pipeline.operator import Context, Operator
from carina.volume import Mask, Volume

NO_LUNG = "No lung was found."


def ai_lung(volume: VolumePort, *, networks: Networks, context: Context) -> Segmented:
    """Segment the lungs with the bundle that the settings name; a scan without lungs gives an empty mask."""
    mask = segment_volume(volume, "lung", networks, context)
    mask = _checked(volume, mask, context)
    return Segmented(mask, lung_scene(volume, mask))


def _checked(volume: Volume, mask: Mask, context: Context) -> Mask:
    """The mask, with what speaks against its being the lungs of a chest, and what is odd about them."""
    found = None if mask.is_empty else chest_of(volume, mask)
    refusals: tuple[str, ...] = found.refusals if found else (NO_LUNG,)
    remarks = found.remarks if found else ()
    if found:
        context.record("aerated_ml", round(found.aerated_ml, 2))
    for sentence in (*refusals, *remarks):
        context.warn(sentence)
    return replace(mask, warnings=(*mask.warnings, *refusals, *remarks), refusals=refusals)


OPERATOR = Operator(
    name="ai-lung",
    images=NETWORK_IMAGES["lung"],
    function=ai_lung,
    inputs={"/input": "volume"},
    outputs={"/output": "segmentation", "/publish": "rendering", "/marked": "segmentation"},
    places={"/output": "lung", "/publish": "render"},
    services=TRITON_IMAGES,
)
