"""What lies in the folders of bundles and is none, or none whose damage would be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from carina.config import Settings
from carina.models.bundle import SHIPPED
from carina.models.damaged import damaged_bundles, undigested_bundles


def bundle_remarks(settings: Settings) -> Iterator[str]:
    """What of ``models.folders`` couldn't be used, those of them that aren't there, and weights without a digest."""
    for folder in settings.models.folders:
        if not Path(folder).is_dir():
            yield f"models.folders: {folder!r} is no folder that is there; make it first, or take it out"
    for name, words in damaged_bundles(settings.models.folders).items():
        yield f"models.folders: {name} can't be used: {words}"
    for name, words in undigested_bundles((*settings.models.folders, SHIPPED)).items():
        yield f"models.folders: {name}: {words}"
