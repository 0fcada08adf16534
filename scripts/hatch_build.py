"""The hook of sdist and wheel: puts the volume viewer's build into the package, where npm can make it.

Without npm the package is whole but for that one view, which then says so; ``CARINA_VIEWER=required``, as a release has
it, makes that an error. An editable install is left alone: ``scripts/setup`` builds for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))

import build_viewer


class ViewerHook(BuildHookInterface):
    """Builds what git does not hold before files are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build unless it is there.

        Raises:
            RuntimeError: the build was asked for by ``CARINA_VIEWER=required`` and failed.
        """
        if version == "editable" or build_viewer.is_built():
            return
        try:
            build_viewer.build()
        except RuntimeError as error:
            if os.environ.get("CARINA_VIEWER") == "required":
                raise
            self.app.display_warning(f"carina: built without the volume viewer: {error}")
