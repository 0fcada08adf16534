"""A scan that shows no chest goes through the whole pipeline: measured, never classified, and every output says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import carina
from carina.api.result import Run
from carina.api.study import RunSettings
from carina.config import load_settings
from carina.synth.not_chests import NotChest, not_a_chest
from carina.testing.dicom import write_ct_series
from tiny_networks import tiny_environment


@pytest.fixture
def how(tmp_path: Path) -> RunSettings:
    """The lungs and the classification are those that ship; what is marked as lesion says nothing of a chest."""
    tiny = tiny_environment(tmp_path / "bundles")
    settings = load_settings(None, {name: tiny[name] for name in ("CARINA_MODELS_FOLDERS", "CARINA_MODELS_LESION")})
    return RunSettings(settings=settings)


def said(run: Run) -> str:
    classification = json.loads(next(run.folder.rglob("classification.json")).read_text(encoding="utf-8"))
    assert classification["probabilities"] == {}
    assert run.probabilities == {}
    reason = str(classification["not_computed"])
    assert reason in run.warnings
    return reason


@pytest.mark.slow
def test_a_head_on_foam_is_not_classified_and_every_output_says_why(how: RunSettings, tmp_path: Path) -> None:
    write_ct_series(not_a_chest(NotChest.HEAD), tmp_path / "STUDY")
    run = carina.run(tmp_path / "STUDY", tmp_path / "OUT", how)
    reason = said(run)
    assert reason.startswith("Not classified.")
    tree = json.loads((run.folder / "findings.json").read_text(encoding="utf-8"))
    sentences = [sentence for sentence in run.manifest.operators["lung-segmentation"].warnings if "lung" in sentence]
    assert sentences and any(sentence in reason for sentence in sentences), "the chest check refuses, nothing after it"
    assert set(sentences) <= set(tree["warnings"])


@pytest.mark.slow
def test_the_bases_of_the_lungs_above_an_abdomen_are_measured_and_not_classified(
    data: Path, how: RunSettings, tmp_path: Path
) -> None:
    run = carina.run(data / "lungs" / "acrin-flt-001-abdomen_ct.nii.gz", tmp_path / "OUT", how)
    assert "Less than half of the lungs' height is in view" in said(run)
    assert run.findings["lung_ml"][0] > 300


@pytest.mark.slow
def test_a_chest_that_ends_at_the_dome_of_the_diaphragm_is_classified_with_a_remark(
    data: Path, how: RunSettings, tmp_path: Path
) -> None:
    run = carina.run(data / "lungs" / "acrin-flt-001-chest_ct.nii.gz", tmp_path / "OUT", how)
    assert run.probabilities
    assert any("The scan ends inside the lungs" in warning for warning in run.warnings)
