"""``scripts/folds.py``: a network for each fold, measured on the patients it has not seen."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from carina.cases.datalist import write_datalist
from carina.train import configure
from data_lists import good_list

SCRIPT = Path(__file__).parents[1] / "scripts" / "folds.py"
SMALL = ("steps=1", "settle=1", "tensorboard=false", "window=[96,96,32]", "patches.0.shape=[32,32,32]")


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> str | int | None:
    """Run the script with these words: what it exits with, 0 where it comes to its end."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as ended:
        return ended.code
    return 0


def test_who_is_measured_was_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = good_list(tmp_path, lesions=False)
    write_datalist(listed, listed.file)
    changes = [word for change in SMALL for word in ("--set", change)]
    recipe = tmp_path / "recipe.toml"
    smoke = Path(configure.PRESETS / "lung-smoke.toml").read_text(encoding="utf-8")
    recipe.write_text(f'task = "lung"\n[[stages]]\nstage = "smoke"\n{smoke}', encoding="utf-8")
    words = ("lung", listed.file, tmp_path / "out", "--folds", 2, "--only", 1, "--recipe", recipe)
    assert call(monkeypatch, *words, *changes) == 0
    said = json.loads((tmp_path / "out" / "fold-1" / "1-smoke" / "data.json").read_text(encoding="utf-8"))
    assert len(said["validation"]) == 2 and not set(said["training"]) & set(said["validation"])
    figures = [row["figure"] for row in rows_of(tmp_path / "out") if row["figure"].startswith("dice ct")]
    assert figures == [f"dice {name}" for name in said["validation"]]


def test_folds_keep_each_others_figures(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    for fold, value in ((1, 0.5), (0, 0.25), (1, 0.75)):
        script["write_figures"](tmp_path, fold, {f"dice {fold}": value})
    assert [(row["fold"], row["figure"], float(row["value"])) for row in rows_of(tmp_path)] == [
        ("0", "dice 0", 0.25),
        ("1", "dice 1", 0.75),
    ]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "figures.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "lesion", "list.json", tmp_path, "--slices", "covid") == 2
    assert "'covid': expected NAME=CSV" in capsys.readouterr().err
    said = call(monkeypatch, "lesion", tmp_path / "list.json", tmp_path)
    assert isinstance(said, str) and "list.json" in said
