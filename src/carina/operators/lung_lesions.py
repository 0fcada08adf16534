"""lung-lesions: the lungs with their lesions, one pair of masks for everything that measures or shows them."""

from __future__ import annotations

from typing import NamedTuple

from carina.measure.joined import join_masks
from carina.operators.ports import MaskPort, Scene, VolumePort
from carina.operators.segmented import lesion_scene, lung_scene
from carina.pipeline.operator import Context, Operator


class LungLesions(NamedTuple):
    """The ports of the joining operator."""

    lung: MaskPort
    lesion: MaskPort
    lung_rendering: Scene
    lesion_rendering: Scene


def lung_lesions(lesion: MaskPort, lung: MaskPort, volume: VolumePort, *, context: Context) -> LungLesions:
    """Join both networks' masks: lesions that the lungs leave out are added, what is marked beside them is left out."""
    joined = join_masks(lesion, lung)
    for warning in joined.lesion.warnings:
        if warning not in lesion.warnings:
            context.warn(warning)
    context.record("added_ml", round(joined.added_ml, 3))
    context.record("left_out_ml", round(joined.left_out_ml, 3))
    return LungLesions(joined.lung, joined.lesion, lung_scene(volume, joined.lung), lesion_scene(volume, joined.lesion))


OPERATOR = Operator(
    name="lung-lesions",
    images=("carina/lung-lesions",),
    function=lung_lesions,
    inputs={"/input": "lesion", "/label_image": "lung", "/volume": "volume"},
    outputs={
        "/lung": "lung",
        "/lesion": "lesion",
        "/publish_lung": "lung_rendering",
        "/publish_lesion": "lesion_rendering",
    },
    places={"/lung": "lung", "/lesion": "lesion", "/publish_lung": "render", "/publish_lesion": "render"},
)
