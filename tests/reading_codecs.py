"""Slices with compressed pixel data, in every codec that is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

from reading_slices import COLUMNS, ROWS

Encode = Callable[[np.ndarray], bytes]

CODECS: dict[str, Encode] = {
    "1.2.840.10008.1.2.4.57": lambda a: bytes(imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=16)),
    "1.2.840.10008.1.2.4.70": lambda a: bytes(imagecodecs.ljpeg_encode(a)),
    "1.2.840.10008.1.2.4.80": lambda a: bytes(imagecodecs.jpegls_encode(a)),
    "1.2.840.10008.1.2.4.90": lambda a: bytes(
        imagecodecs.jpeg2k_encode(a, codecformat="j2k", level=0, reversible=True)
    ),
    "1.2.840.10008.1.2.4.201": lambda a: bytes(imagecodecs.htj2k_encode(a)),
}


def words_of(dataset: Dataset) -> list[np.ndarray]:
    frames = np.frombuffer(dataset.PixelData, "<u2").reshape(-1, ROWS, COLUMNS)
    return list(frames)


def compressed(dataset: Dataset, syntax: str, fragments_per_frame: int = 1, **table: Any) -> Dataset:
    """The same dataset with its frames encoded."""
    if syntax == RLELossless:
        dataset.compress(RLELossless)
        return dataset
    frames = [CODECS[syntax](frame) for frame in words_of(dataset)]
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments_per_frame, **table)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset
