"""A whole node killed a few times while it receives, runs and sends; the benchmark of that name does it 200 times."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from carina.testing.pacs import orthanc_program

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import kill_node


@pytest.mark.skipif(not orthanc_program(), reason="Orthanc is not installed; on Debian: apt-get install orthanc")
@pytest.mark.skipif(not shutil.which("storescu"), reason="storescu is not installed; on Debian: apt-get install dcmtk")
def test_a_node_that_is_killed_loses_nothing_and_stores_nothing_twice() -> None:
    figures = kill_node.main(kills=5, seed=2)
    assert figures.is_right, figures
    assert sum(figures.kills.values()) == 5
    assert figures.instances == figures.series * kill_node.SLICES
    assert figures.objects >= figures.instances
