"""A bundle run on files, without a pipeline: what a bundle's ``configs/inference.json`` calls."""

from __future__ import annotations

import json
from pathlib import Path

from carina import RESEARCH_ONLY
from carina.config import Plan, RuntimeSettings
from carina.errors import BadConfig
from carina.infer.classify import classify
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import Bundle, find_bundle
from carina.volume.files import read_mask, read_volume, write_mask


def infer_file(
    bundle: Bundle, image: Path, output: Path, settings: RuntimeSettings | None = None, plan: Plan = Plan.ORIGINAL
) -> Path:
    """Segment a volume file (MetaImage, NIfTI, NRRD) and write the mask beside it in any of these formats.

    Raises:
        BadSeries: the image can't be read.
        BadConfig: the runtime can't be opened, or the output can't be written.
        ModelFailed: the network failed.
    """
    write_mask(segment(read_volume(image), bundle, open_runtime(bundle, settings), plan), output)
    return output


def classify_file(
    bundle: Bundle, image: Path, output: Path, lung: Path | str = "", settings: RuntimeSettings | None = None
) -> Path:
    """Classify a volume file and write the probability of each class as JSON.

    ``lung`` is the lung mask's file on the image's grid; where it is empty, the bundle ``lung-ahnet`` finds the lungs.

    Raises:
        BadSeries: the image or the mask can't be read or don't fit, or there is no lung.
        BadConfig: the runtime can't be opened, or the output can't be written.
        ModelFailed: the network failed.
    """
    volume = read_volume(image)
    if lung:
        mask = read_mask(Path(lung))
    else:
        finder = find_bundle("lung-ahnet")
        mask = segment(volume, finder, open_runtime(finder, settings))
    found = classify(volume, mask, bundle, open_runtime(bundle, settings))
    text = json.dumps({"made_by": bundle.made_by, "probabilities": found, "notice": RESEARCH_ONLY}, indent=2)
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise BadConfig("output.unwritable", f"{output}: can't be written ({error.strerror}).") from error
    return output
