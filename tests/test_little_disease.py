"""What a classifier can't tell, and where disease is too little for it, stands in every output of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pydicom import dcmread

from carina.api.cohort_table import findings_of
from carina.api.result import Run
from carina.config import Settings
from carina.measure.texts import percent_text
from carina.models.bundle import Covid, find_bundle
from carina.models.classifying import LittleDisease
from carina.operators.table import BUILT_IN
from carina.pipeline.definition import Definition
from carina.pipeline.run import RunOptions, run_pipeline
from carina.service.viewer.found import found_by
from dicom_objects_samples import errors_of
from test_chest_told import comments_of, outputs, pdf_text, run_default
from test_operators import WHEN, TrueNetworks, Truth, folder, phantom, series, spec, truth
from test_viewer_pages import asked, text_of
from viewer_runs import served

__all__ = ["folder", "phantom", "series", "spec", "truth"]

NOT_ABOUT_CLASSES = ("lung SEG", "lesion SEG", "lung MetaImage", "lesion MetaImage", "volume-ratio PDF")


def little_networks(none: float, enough: float) -> type[TrueNetworks]:
    """Their classifier sees no disease that takes between these shares of the lungs."""

    class LittleNetworks(TrueNetworks):
        def bundle(self, task: str) -> Any:
            bundle = super().bundle(task)
            little = LittleDisease(none=none, enough=enough)
            bundle.carina = msgspec.structs.replace(bundle.carina, little_disease=little)
            return bundle

    return LittleNetworks


def test_every_output_says_where_disease_is_too_little_to_classify(series: Any, truth: Truth, tmp_path: Path) -> None:
    plain = run_default(series, tmp_path / "plain")
    percent = json.loads((plain / "findings.json").read_text())["regions"][0]["ratio_percent"]
    assert 0.5 < percent < 40 and Run(plain).probabilities
    networks = little_networks(0.001, 0.5)
    folder = run_default(series, tmp_path / "out", networks=networks)
    sentence = (
        f"Not classified. Little disease: {percent_text(percent)} % of the lungs are marked as lesion. Up to 0.1 % "
        "counts as nothing marked; from 50 % on the classifier's probability says something."
    )
    told = {name: words for name, words in outputs(folder, tmp_path) if name not in NOT_ABOUT_CLASSES}
    told["classification.csv"] = next(folder.glob("steps/classification/**/classification.csv")).read_text()
    told["page"] = found_by(Run(folder)).not_computed
    told["cohort table"] = str(findings_of(folder)["warnings"])
    assert [name for name, words in told.items() if sentence not in words] == []
    assert Run(folder).probabilities == {} and "probability COVID-19" not in findings_of(folder)
    assert errors_of(folder / "dicom" / "measurements.dcm") == []


@pytest.mark.parametrize(("none", "enough"), [(0.0, 0.001), (0.4, 0.5)])
def test_nothing_marked_and_enough_marked_are_classified(
    none: float, enough: float, series: Any, truth: Truth, tmp_path: Path
) -> None:
    assert Run(run_default(series, tmp_path / "out", networks=little_networks(none, enough))).probabilities
    truth["lesion"] = np.zeros_like(truth["lesion"])
    assert Run(run_default(series, tmp_path / "none", networks=little_networks(none, enough))).probabilities


def test_the_published_definition_classifies_whatever_is_marked(
    spec: Definition, series: Any, truth: Truth, tmp_path: Path
) -> None:
    """Its classification gets no lesions."""
    (classification,) = (step for step in spec.steps if step.container.image.endswith("covid-19"))
    assert {entry.path for entry in classification.inputs} == {"/input", "/label_image"}
    run_pipeline(
        spec,
        BUILT_IN,
        inputs={"input": series},
        out=tmp_path,
        services=(Settings(), little_networks(0.0, 1.0)(Settings())),
        options=RunOptions(clock=lambda: WHEN),
    )
    (stored,) = tmp_path.rglob("classification.json")
    assert json.loads(stored.read_text())["probabilities"] == {"non-COVID-19": 0.25, "COVID-19": 0.75}


class ShippedNetworks(TrueNetworks):
    """Their classifier says what the one that ships says of itself."""

    def bundle(self, task: str) -> Any:
        bundle = super().bundle(task)
        if task == "covid":
            bundle.carina = find_bundle("covid-densenet").carina
        return bundle


def test_the_shipped_classifier_says_everywhere_how_it_tells_pneumonias_apart(
    series: Any, truth: Truth, tmp_path: Path
) -> None:
    shipped = find_bundle("covid-densenet")
    assert isinstance(shipped.carina, Covid) and shipped.carina.validation is not None
    _, sentence, *_ = limits = shipped.carina.validation.limits
    assert f"AUC is {shipped.eval_metrics['auc against other pneumonias']:.2f} (0.5 is chance)" in sentence
    assert 0.45 < shipped.eval_metrics["taken for COVID-19, other pneumonias"] < 0.5 and "nearly half" in sentence
    truth["lesion"] = np.zeros_like(truth["lesion"])
    truth["lesion"][truth["lung"] > 0] = 1  # all of the lungs: no little disease
    folder = run_default(series, tmp_path / "out", networks=ShippedNetworks)
    told = {
        "SR": " ".join(comments_of(dcmread(folder / "dicom" / "measurements.dcm"))),
        "PDF": pdf_text(folder / "dicom" / "classification.dcm", tmp_path),
        "findings.json": " ".join(json.loads((folder / "findings.json").read_text())["limits"]),
    }
    with served(folder) as address:
        told |= {f"page {page}": text_of(asked(address + page)[1]) for page in ("/", "/report")}
    assert [(where, limit) for where, words in told.items() for limit in limits if limit not in words] == []
