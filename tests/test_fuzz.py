"""Damaged inputs of every kind, by fixed seeds: refused in one line or read, never a traceback, a hang or a crash."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from carina.testing.hostile import Sample, hostile

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "fuzz.py"
COUNTS = {Sample.DICOM: 200, Sample.VOLUME: 200, Sample.DEFINITION: 80, Sample.MANIFEST: 300, Sample.SETTINGS: 300}


def fuzz(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--workers", "1", "--patience", "300", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", Sample)
def test_damaged_input_is_refused_in_one_line_or_read(kind: Sample) -> None:
    done = fuzz("--kind", kind, "--count", str(COUNTS[kind]))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{COUNTS[kind]} inputs, 0 findings" in done.stdout


@pytest.mark.parametrize("kind", Sample)
def test_a_seed_gives_the_same_bytes_again(kind: Sample, tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        hostile(kind, 7, folder, sample=b"key = 1\nother = [2, 3]\n")
        made.append({file.name: file.read_bytes() for file in sorted(folder.iterdir())})
    assert made[0] == made[1]
    assert made[0]


def test_a_traceback_is_found_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    text = SCRIPT.read_text(encoding="utf-8")
    program.write_text(text.replace("words = read_hostile(", "words = undefined_name("), encoding="utf-8")
    command = [sys.executable, str(program), "--kind", "settings", "--count", "2", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "traceback NameError" in done.stdout
    assert "2 inputs, 2 findings" in done.stdout


def test_a_peak_of_memory_is_one_inputs_and_the_next_gets_a_new_worker(tmp_path: Path) -> None:
    program = tmp_path / "tight.py"
    text = SCRIPT.read_text(encoding="utf-8")
    program.write_text(
        text.replace("    peak = resource", "    peak = 2 * MEMORY_BYTES if seed == 1 else 0 and resource"),
        encoding="utf-8",
    )
    command = [sys.executable, str(program), "--kind", "settings", "--count", "3", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "settings 1 memory 4000 MB" in done.stdout
    assert "3 inputs, 1 findings" in done.stdout


SLEEPER = """
import pathlib, sys, time
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    print("start", seed, flush=True)
    time.sleep(600 if {asleep} else 0)
    print("settings", seed, "refused", flush=True)
"""
"""A worker that imports next to nothing, so that little patience is much to it."""


@pytest.mark.parametrize(
    ("asleep", "said"),
    [
        ("seed == 1", ["settings 1 hang over 6 s"]),
        ("seed == 1 and not (slept := pathlib.Path(__file__ + '.slept')).exists() and not slept.touch()", []),
    ],
    ids=["always", "once"],
)
def test_a_silence_is_a_hang_if_the_seed_is_silent_alone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asleep: str, said: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = importlib.import_module("fuzz")
    worker = tmp_path / "sleeper.py"
    worker.write_text(SLEEPER.format(asleep=asleep), encoding="utf-8")
    monkeypatch.setattr(script, "MORE_PATIENCE", 2)
    words = [sys.executable, "-S", str(worker)]
    monkeypatch.setattr(script.Watched, "_command", lambda _, first, count: [*words, str(first), str(first + count)])
    found = script.Findings()
    script.watch((Sample.SETTINGS, 0, 3), found, 3.0)
    assert found.faults == said
    assert found.outcomes.total() == 3


@pytest.mark.parametrize("seed", [1003392, *range(200)])
def test_damage_upon_damage_stays_small(seed: int, tmp_path: Path) -> None:
    """Repeated lines of repeated lines once made a manifest of 1.3 GB, which was blamed on its reader."""
    path = hostile(
        Sample.MANIFEST, seed, tmp_path, sample=b'{"state":"waiting","notice":"For research use only."}' * 12
    )
    assert path.stat().st_size < 64_000_000
