"""What the README shows is what a user gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from tiny_networks import tiny_environment

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in tiny_environment(tmp_path / "bundles").items():
        monkeypatch.setenv(name, value)
    write_ct_series(chest_phantom(shape=(48, 192, 192), seed=3).volume, tmp_path / "STUDY")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, "the README shows no Python"
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "(48, 192, 192)" in said
    assert "ratio_percent" in said
    assert said.rstrip().endswith("True")
    assert (tmp_path / "overlay.png").stat().st_size > 10_000


def test_every_link_of_the_readme_and_docs_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    broken = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not broken
