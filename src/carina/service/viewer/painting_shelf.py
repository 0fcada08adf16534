"""The masks that are being corrected, kept in memory between strokes; what is on the disk is always all of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from carina.corrections.masks import MaskName, network_mask, strokes_file
from carina.corrections.painting import Painting
from carina.service.viewer.opened import OpenedRun

PAINTINGS_KEPT = 3
"""A mask of a CT of 300 slices takes some 160 MB while it is corrected."""


class PaintingShelf:
    """The paintings that were asked for last; one of a run that was made again since is opened anew."""

    def __init__(self, kept: int = PAINTINGS_KEPT) -> None:
        self.kept = kept
        self._lock = threading.Lock()
        self._paintings: OrderedDict[tuple[Path, MaskName], tuple[OpenedRun, Painting]] = OrderedDict()

    def open(self, opened: OpenedRun, layer: MaskName) -> Painting:
        """The mask of a run with every stroke that was stored, by whomever.

        Raises:
            BadConfig: the run made no such mask, or the strokes are damaged or of another mask.
        """
        key = (opened.run.folder.resolve(), layer)
        with self._lock:
            of_run, painting = self._paintings.pop(key, (None, None))
            if painting is None or of_run is not opened:
                painting = Painting(network_mask(opened.run, layer), strokes_file(opened.run.folder, layer))
            self._paintings[key] = (opened, painting)
            while len(self._paintings) > self.kept:
                self._paintings.popitem(last=False)
        painting.catch_up()
        return painting
