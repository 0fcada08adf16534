"""Operators: plain typed functions, one file each. Here are the port types that other packages' operators use too."""

from carina.operators.ports import (
    ClassificationPort,
    DicomObjects,
    Log,
    MaskPort,
    RatioPort,
    SaliencyPort,
    Scene,
    SourcePort,
    VolumePort,
)

__all__ = [
    "ClassificationPort",
    "DicomObjects",
    "Log",
    "MaskPort",
    "RatioPort",
    "SaliencyPort",
    "Scene",
    "SourcePort",
    "VolumePort",
]
