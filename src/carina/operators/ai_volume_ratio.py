"""ai-volume-ratio: lesion and lung volumes and their ratio."""

from __future__ import annotations

from carina.measure.ratio import lesion_ratio
from carina.operators.ports import MaskPort, RatioPort, VolumePort
from carina.pipeline.operator import Context, Operator


def ai_volume_ratio(
    lesion: MaskPort, lung: MaskPort, volume: VolumePort | None = None, *, context: Context
) -> RatioPort:
    """Measure lungs and lesions, whole and by region; with the CT also their mean HU and slices to show."""
    findings = lesion_ratio(lesion, lung, volume)
    for warning in findings.warnings:
        context.warn(warning)
    return findings


OPERATOR = Operator(
    name="ai-volume-ratio",
    images=("clara/ai-volume-ratio", "carina/ai-volume-ratio"),
    function=ai_volume_ratio,
    inputs={"/input": "lesion", "/label_image": "lung", "/volume": "volume"},
    outputs={"/output": ""},
)
