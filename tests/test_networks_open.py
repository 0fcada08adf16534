"""Networks are open while an operator uses them, and no longer."""

from __future__ import annotations

import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

import carina.operators.networks
import carina.operators.segmented
from carina.config import RuntimeSettings, Settings
from carina.operators.segmented import segment_volume
from carina.pipeline.operator import Context
from carina.volume import Grid, Mask, Volume
from test_operators import NamedNetworks


def test_a_network_is_open_while_somebody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_network(bundle: Any, how: RuntimeSettings) -> Any:
        opened.append(bundle.name)
        return lambda patches: [patches]

    monkeypatch.setattr(carina.operators.networks, "open_network", open_network)
    networks = NamedNetworks(Settings())
    with networks.opened("lung") as first, networks.opened("lung") as second, networks.opened("lesion"):
        assert first is second and opened == ["true-lung", "true-lesion"]
    with pytest.raises(ZeroDivisionError, match="by hand"), networks.opened("lung"):
        raise ZeroDivisionError("by hand")
    with networks.opened("lung") as again:
        assert again is not first and opened == ["true-lung", "true-lesion", "true-lung", "true-lung"]


def test_networks_pass_over_a_scan_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes at once would need the memory of both."""
    passing: list[str] = []
    most: list[int] = []
    both_asked = Barrier(2)

    def segment(volume: Volume, bundle: Any, *_: Any) -> Mask:
        passing.append(bundle.name)
        most.append(len(passing))
        time.sleep(0.05)
        passing.remove(bundle.name)
        return Mask(labels=np.zeros(volume.grid.shape, np.uint8), grid=volume.grid, names={1: "lung"}, uid="1")

    monkeypatch.setattr(carina.operators.networks, "open_network", lambda bundle, how: lambda patches: [patches])
    monkeypatch.setattr(carina.operators.segmented, "segment", segment)
    networks = NamedNetworks(Settings())
    grid = Grid(shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    volume = Volume(hu=np.zeros(grid.shape, np.int16), grid=grid, uid="1")
    context = Context(
        step="segmentation",
        folder=Path(),
        when=dt.datetime(2026, 11, 28, tzinfo=dt.UTC),
        progress=lambda fraction: None,
        warn=lambda sentence: None,
        record=lambda key, fact: None,
        saved=lambda value: (),
    )

    def ask(task: str) -> Mask:
        both_asked.wait(60)
        return segment_volume(volume, task, networks, context)

    with ThreadPoolExecutor(2) as pool:
        assert all(mask.is_empty for mask in pool.map(ask, ["lung", "lesion"]))
    assert most == [1, 1]
