"""Objects that an operator of others leaves where a node neither lists nor sends them: said, since nobody would see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from carina.deliver.onward import SENT_FROM, not_sent_yet


def left_aside(path: str, files: Sequence[Path], run: Path) -> str:
    """What is said of an output that no step reads, whose ``files`` lie in a run's folder. Empty: nothing."""
    objects = [file.relative_to(run) for file in not_sent_yet(files, run)]
    if not objects:
        return ""
    place = os.path.commonpath([file.parent for file in objects])
    seen = f"{len(objects)} DICOM object(s) of {path} lie in {place}, and no step reads them"
    how = f"let register-results (agent ClaraSCU) read {path}, or have a package's operator put it there by its places"
    return f"{seen}: a node lists and sends what lies in {SENT_FROM}/ of the run alone; {how}."
