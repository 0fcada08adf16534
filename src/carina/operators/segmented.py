"""What both segmentation operators share: run the network, hand out the mask and a scene for the viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from carina.infer.runtime import first_of, open_runtime
from carina.infer.segment import segment
from carina.operators.networks import Networks
from carina.operators.ports import MaskPort, Scene
from carina.pipeline.operator import Context
from carina.volume.volume import Mask, Volume

TRITON_IMAGES = ("nvcr.io/nvidia/tritonserver", "nvcr.io/nvidia/tensorrtserver")
"""Server images that a definition may ask for; they are served in this process unless an endpoint is set."""

BLUE, GREEN, ORANGE = "#56b4e9", "#009e73", "#e69f00"
BLUE_DEEP, VERMILION = "#0072b2", "#d55e00"
"""Colours that people with a colour vision deficiency tell apart (Okabe and Ito 2008)."""


class Segmented(NamedTuple):
    """The ports of a segmentation operator."""

    segmentation: MaskPort
    rendering: Scene


def segment_volume(volume: Volume, task: str, networks: Networks, context: Context) -> Mask:
    """Run the network of a task over a volume.

    Raises:
        BadConfig: the bundle or its runtime is not to be had.
        ModelFailed: the network gave what its bundle does not describe.
    """
    plan = networks.settings.runtime.plan
    first = networks.first_look(task)
    with networks.passing, networks.opened(task) as network:
        seen_by = open_runtime(first, networks.runtime_settings) if first else None
        mask = segment(volume, networks.bundle(task), first_of(network), plan, fraction(context), seen_by)
    for warning in mask.warnings:
        context.warn(warning)
    context.record("made_by", mask.made_by)
    context.record("marked_ml", round(mask.volume_ml(), 2))
    return mask


def lung_scene(volume: Volume, lung: Mask) -> Scene:
    """The lungs over the CT, each label in a colour of its own."""
    colours = dict(zip(sorted(lung.names), (BLUE, GREEN), strict=False))
    return Scene(volume=volume, shown=lung, layer="lung", order=1, colours=colours, opacity=0.25)


def lesion_scene(volume: Volume, lesion: Mask) -> Scene:
    """The lesions over the CT."""
    colours = dict.fromkeys(lesion.names, ORANGE)
    return Scene(volume=volume, shown=lesion, layer="lesion", order=2, colours=colours, opacity=0.6)


def fraction(context: Context) -> Callable[[int, int], None]:
    """What a network's progress in steps done and their count tells the engine."""
    return lambda done, count: context.progress(done / max(1, count))
