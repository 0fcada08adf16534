"""What the README shows is what a user gets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carina.models.bundle import SHIPPED, Covid, load_bundle
from carina.models.validation import SeenBefore, Validation
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from tiny_networks import tiny_environment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in tiny_environment(tmp_path / "bundles").items():
        monkeypatch.setenv(name, value)
    write_ct_series(chest_phantom(shape=(48, 192, 192), seed=3).volume, tmp_path / "STUDY")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


def said_of(name: str) -> Validation:
    validation = load_bundle(SHIPPED / name).carina.validation
    assert validation is not None
    return validation


def test_the_readme_counts_what_each_bundle_was_trained_on() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \| (\d+) chests(?:, (\d+) bell(?:y|ies))?", README, re.MULTILINE)
    counted = {name: (int(chests), int(bellies or 0)) for name, chests, bellies in table}
    trained = {folder.name: said_of(folder.name).trained_cases for folder in SHIPPED.iterdir() if folder.is_dir()}
    without_chest = {name: sum(case.endswith(("-abdomen", "-belly")) for case in trained[name]) for name in trained}
    assert counted == {name: (len(trained[name]) - without_chest[name], without_chest[name]) for name in trained}


def test_the_readme_says_what_the_classifier_does_with_patients_that_it_has_not_seen() -> None:
    (unseen,) = (test for test in said_of("covid-densenet").tests if test.seen is SeenBefore.NEVER)
    (figure,) = unseen.figures
    words = " ".join(README.split())
    assert unseen.count == 4 and "to the four patients without COVID-19 that it has never seen" in words
    assert f"the classifier gives {figure.low:.2f} or more" in words


def test_the_readme_and_the_docs_say_the_classifiers_input_as_it_is() -> None:
    spec = load_bundle(SHIPPED / "covid-densenet").carina
    assert isinstance(spec, Covid)
    assert f"its input: {' x '.join(map(str, spec.size))} voxels" in README
    inference = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    assert f"{'x'.join(map(str, spec.size))} in the one that ships" in " ".join(inference.split())
