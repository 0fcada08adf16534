"""The sender killed at random moments, a few times; the benchmark of the same name does it as often as it is told."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import kill_sender


def test_whenever_the_sender_is_killed_every_object_arrives_and_none_twice() -> None:
    figures = kill_sender.main(kills=8, seed=3, confirm_s=10.0)
    assert figures.objects == 8 * kill_sender.OBJECTS * 3
    assert figures.delivered == figures.objects
    assert figures.stored_twice == 0
