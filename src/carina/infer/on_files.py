"""A bundle run on files, without a pipeline: what a bundle's ``configs/inference.json`` calls."""

from __future__ import annotations

from pathlib import Path

from carina.config import Plan, RuntimeSettings
from carina.infer.runtime import open_runtime
from carina.infer.segment import segment
from carina.models.bundle import Bundle
from carina.volume.files import read_volume, write_mask


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
