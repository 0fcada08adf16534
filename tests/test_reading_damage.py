"""Damaged headers and claims larger than the file: headers, a refusal that names the file, and never anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from damaged_files import DAMAGES, SYNTAXES, damaged, read_all, whole_file


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", ["slice", "frames"])
def test_whole_files_are_read(tmp_path: Path, syntax: str, kind: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(whole_file(syntax, kind))
    assert read_all(file) == "read"


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(tmp_path: Path, first: int) -> None:
    for seed in range(first, first + 100):
        file = tmp_path / f"file {seed}"
        file.write_bytes(damaged(seed))
        read_all(file)


@pytest.mark.parametrize("damage", dict.fromkeys(DAMAGES), ids=lambda one: one.__name__.strip("_"))
def test_each_damage_changes_files_and_some_are_refused(tmp_path: Path, damage: object) -> None:
    outcomes = set()
    for seed in range(60):
        content = bytearray(whole_file(SYNTAXES[seed % len(SYNTAXES)], "slice"))
        damage(content, random.Random(seed))  # type: ignore[operator]
        file = tmp_path / "file"
        file.write_bytes(content)
        outcomes.add(read_all(file))
    assert len(outcomes) > 1
