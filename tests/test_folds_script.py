"""``scripts/folds.py``: a network for each fold, measured on the patients it has not seen."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from carina.cli.synth import synth

pytest.importorskip("torch", reason="the train extra is not installed")

SCRIPT = Path(__file__).parents[1] / "scripts" / "folds.py"
SMALL = ("steps=1", "validate_every=1", "patches.0.shape=[32,32,32]", "window=[64,64,32]", "tensorboard=false")


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_every_patient_is_measured_by_a_network_that_has_not_seen_it(tmp_path: Path) -> None:
    options = ["--count", "2", "--slices", "32", "--pixels", "96", "--healthy", "1"]
    assert CliRunner().invoke(synth, ["cases", "-o", str(tmp_path), *options]).exit_code == 0
    changes = [word for change in SMALL for word in ("--set", change)]
    for fold in (0, 1):
        words = ("lung", tmp_path / "data.json", tmp_path / "out", "--folds", 2, "--only", fold, "--stages", "smoke")
        done = call(*words, *changes)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "figures.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["fold"], row["figure"]) for row in rows if row["figure"].startswith("dice synth")} == {
        (str(fold), f"dice {name}") for fold, name in _held(tmp_path / "out")
    }
    assert len({row["figure"] for row in rows if row["figure"].startswith("dice synth")}) == 2


def _held(out: Path) -> list[tuple[int, str]]:
    found = []
    for fold in (0, 1):
        said = json.loads((out / f"fold-{fold}" / "smoke" / "data.json").read_text(encoding="utf-8"))
        assert not set(said["training"]) & set(said["validation"])
        found += [(fold, name) for name in said["validation"]]
    return found


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    done = call("lesion", "list.json", tmp_path, "--slices", "covid")
    assert done.returncode == 2 and "'covid': expected NAME=CSV" in done.stderr
    done = call("lesion", tmp_path / "list.json", tmp_path)
    assert done.returncode == 1 and "list.json" in done.stderr and "Traceback" not in done.stderr
