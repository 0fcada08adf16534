"""``carina evaluate``: known masks and probabilities give known figures; what fails is named, the rest goes on."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from carina import RESEARCH_ONLY
from carina.cases.datalist import read_datalist
from carina.config import ModelSettings, Plan, Precision, RuntimeSettings, Settings
from carina.errors import BadConfig
from carina.evaluate.evaluate import evaluate
from carina.evaluate.report import report_pdf
from carina.evaluate.summary import sum_up_classification
from carina.evaluate.tables import evaluation_json, write_tables
from carina.evaluate.values import CaseAgreement, CaseClassification, Evaluation, Split, spread
from carina.models.bundle import Bundle
from carina.volume import Grid, Mask, Volume
from carina.volume.files import write_mask, write_volume
from tiny_networks import mean_bundle, threshold_bundle

GRID = Grid(shape=(16, 40, 48), spacing_mm=(2.0, 1.0, 1.0), origin_mm=(-24.0, -20.0, 5.0))
WHEN = datetime(2026, 1, 2, 3, 4)
SETTINGS = Settings(runtime=RuntimeSettings(plan=Plan.ORIGINAL, precision=Precision.F32, threads=1))
Bools = npt.NDArray[np.bool_]


def box(*, start: int = 10, size: int = 20) -> Bools:
    """A box of 8 slices and 16 rows, ``size`` columns wide: 0.256 ml for each column."""
    mask = np.zeros(GRID.shape, dtype=np.bool_)
    mask[4:12, 12:28, start : start + size] = True
    return mask


def image(dark: Bools, path: Path, *, hu: int = -900) -> str:
    values = np.where(dark, hu, 40).astype(np.int16)
    values[0, 0, 0] = -1000
    write_volume(Volume(hu=values, grid=GRID, uid="1"), path)
    return path.name


def mask(flags: Bools, path: Path, grid: Grid = GRID) -> str:
    write_mask(Mask(labels=flags.astype(np.uint8), grid=grid, names={1: "x"}, uid="1"), path)
    return path.name


def listed(folder: Path, entries: list[dict[str, object]], part: str = "validation") -> Path:
    file = folder / "list.json"
    file.write_text(json.dumps({"training": [], "validation": [], part: entries}), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with truth, and three cases that can't be measured."""
    folder = tmp_path_factory.mktemp("cases")
    image(box(), folder / "ct.nii.gz")
    image(np.zeros_like(box()), folder / "nothing.nii.gz")
    (folder / "other").mkdir()
    shutil.copyfile(folder / "ct.nii.gz", folder / "other" / "ct.nii.gz")
    mask(box(), folder / "same.nii.gz")
    mask(box(start=14), folder / "shifted.nii.gz")
    mask(box(start=40, size=5), folder / "elsewhere.nii.gz")
    mask(np.zeros_like(box()), folder / "empty.nii.gz")
    far = Grid(shape=GRID.shape, spacing_mm=GRID.spacing_mm, origin_mm=(0.0, 0.0, 0.0))
    mask(box(), folder / "far.nii.gz", far)
    return folder


def entries(key: str = "label_image") -> list[dict[str, object]]:
    return [
        {"image": "ct.nii.gz", key: "same.nii.gz"},
        {"image": "other/ct.nii.gz", key: "shifted.nii.gz"},
        {"image": "./ct.nii.gz", key: "empty.nii.gz"},
        {"image": "nothing.nii.gz", key: "elsewhere.nii.gz"},
        {"image": "missing.nii.gz", key: "same.nii.gz"},
        {"image": "../" + Path("ct.nii.gz").name, key: "same.nii.gz"},
        {"image": "other/../ct.nii.gz", key: "far.nii.gz"},
        {"image": "other/../other/ct.nii.gz"},
    ]


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return threshold_bundle(folder / "bundles" / "tiny-lesion", task="lesion", labels={"1": "lesion"})


@pytest.fixture(scope="module")
def measured(folder: Path, bundle: Bundle) -> Evaluation:
    return evaluate(bundle, read_datalist(listed(folder, entries())), when=WHEN, settings=SETTINGS)


def agreements(found: Evaluation) -> list[CaseAgreement]:
    """The cases of an evaluation of masks, all of them."""
    cases = [case for case in found.cases if isinstance(case, CaseAgreement)]
    assert len(cases) == len(found.cases)
    return cases


def test_each_case_has_the_figures_of_its_masks(measured: Evaluation) -> None:
    same, shifted, empty, missed = agreements(measured)
    corner_ml = 0.002
    assert same.dice == pytest.approx(2 * 2560 / (2 * 2560 + 1), abs=1e-9), "the one dark corner voxel is found too"
    assert same.found_ml == pytest.approx(5.12 + corner_ml) and same.hd95_mm == 0
    assert shifted.dice == pytest.approx(2 * 2048 / (2 * 2560 + 1)) and shifted.hd95_mm == pytest.approx(4.0)
    assert shifted.volume_error_ml == pytest.approx(corner_ml)
    assert (empty.dice, empty.surface_dice) == (0, 0)
    assert (empty.hd95_mm, empty.volume_error_percent) == (math.inf, math.inf)
    assert missed.dice == 0 and missed.volume_error_ml == pytest.approx(corner_ml - 1.28)
    found = [case.detection for case in (same, shifted, empty, missed)]
    assert [(one.found, len(one.lesions_ml), len(one.false_ml)) for one in found if one is not None] == [
        (1, 1, 0), (1, 1, 0), (0, 0, 1), (0, 1, 0),
    ]  # fmt: skip


def test_what_cannot_be_measured_is_named_with_its_reason(measured: Evaluation) -> None:
    reasons = {one.case: (one.code, one.reason) for one in measured.failures}
    assert reasons["missing"][0] == "file.missing" and "missing.nii.gz: no such file" in reasons["missing"][1]
    assert reasons["../ct.nii.gz"][0] == "file.missing"
    code, reason = reasons["other/../ct.nii.gz"]
    assert code == "mask.grid" and "far.nii.gz" in reason and "resample it first" in reason
    assert "gives no label_image to compare with" in reasons["other/../other/ct.nii.gz"][1]
    assert len(measured.cases) == len(measured.failures) == 4


def test_the_summary_counts_infinite_distances_and_pools_lesions(measured: Evaluation) -> None:
    summary = measured.segmentation
    assert summary is not None and summary.detection is not None
    spreads = {one.figure: one for one in summary.spreads}
    values = [case.dice for case in agreements(measured)]
    assert (spreads["dice"].mean, spreads["dice"].sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (spreads["dice"].median, spreads["dice"].min, spreads["dice"].max) == pytest.approx(
        (np.median(values), 0, max(values))
    )
    assert (spreads["hd95_mm"].cases, spreads["hd95_mm"].infinite) == (3, 1)
    detection = summary.detection
    assert (detection.found, detection.lesions, detection.false_positives_per_scan) == (2, 3, 0.25)
    nothing = spread("hd95_mm", [math.inf])
    assert (nothing.cases, nothing.infinite, nothing.mean, nothing.sd) == (0, 1, None, None)


def test_tables_hold_every_case_and_json_has_no_infinity(measured: Evaluation, tmp_path: Path) -> None:
    write_tables(measured, tmp_path)
    with (tmp_path / "cases.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 4 + ["failed"] * 4
    assert rows[2]["hd95_mm"] == "inf" and float(rows[1]["hd95_mm"]) == 4
    value = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert value["cases"][2]["hd95_mm"] is None
    assert value["notice"] == RESEARCH_ONLY
    assert value["bundle"]["sha256"] == measured.subject.bundle.sha256
    assert value["lesions"]["ct.nii.gz"]["found_by_ml"] == [pytest.approx(5.12)]
    assert value["free_response"]["sensitivity"][-1] == 0
    with (tmp_path / "summary.csv").open(encoding="utf-8") as file:
        summary = {row["figure"]: row for row in csv.DictReader(file)}
    assert float(summary["lesion_sensitivity"]["value"]) == pytest.approx(2 / 3, abs=1e-4)


def pages(pdf: bytes, folder: Path) -> str:
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (poppler-utils) is not installed")
    (folder / "report.pdf").write_bytes(pdf)
    done = subprocess.run(
        ["pdftotext", "-layout", str(folder / "report.pdf"), "-"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_report_says_what_was_measured_and_shows_the_worst(measured: Evaluation, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pdf = report_pdf(measured)
    text = pages(pdf, tmp_path)
    for words in (
        RESEARCH_ONLY, "Evaluation of tiny-lesion", measured.subject.bundle.sha256[:16], "4 measured, 4 failed",
        "2 of 3 lesions", "missing.nii.gz: no such file", "The worst cases", "ct.nii.gz: Dice 0.000", "infinite",
        "seen from the feet",
    ):  # fmt: skip
        assert words in text
    assert len(measured.worst) == 3 and all(len(pictures) > 0 for _, pictures in measured.worst)
    assert report_pdf(measured) == pdf, "the same evaluation gives the same report"


def test_a_lung_bundle_takes_the_lung_mask_first(folder: Path, tmp_path: Path) -> None:
    lung = threshold_bundle(tmp_path / "tiny-lung")
    both: dict[str, object] = {"image": "ct.nii.gz", "lung_image": "same.nii.gz", "label_image": "elsewhere.nii.gz"}
    found = evaluate(lung, read_datalist(listed(folder, [both])), when=WHEN, settings=SETTINGS)
    (case,) = found.cases
    assert isinstance(case, CaseAgreement)
    assert case.dice > 0.999 and case.detection is None


def classified(folder: Path, means: list[float], labels: list[int], **keys: object) -> list[dict[str, object]]:
    """Images whose lung box is filled with one value, so that the probability of class 1 is known."""
    items: list[dict[str, object]] = []
    for number, (mean, label) in enumerate(zip(means, labels, strict=True)):
        everything = np.ones(GRID.shape, dtype=np.bool_)
        image(everything, folder / f"filled{number}.nii.gz", hu=round(-1000 + 1000 * mean))
        items.append({"image": f"filled{number}.nii.gz", "label": [label], **keys})
    return items


MEANS, LABELS = [0.05, 0.3, 0.4, 0.1, 0.6, 0.2], [0, 0, 1, 0, 1, 1]


@pytest.fixture(scope="module")
def judged(folder: Path) -> Evaluation:
    """A classifier over six cases of known means, and three cases that can't be judged."""
    bad: list[dict[str, object]] = [
        {"image": "filled0.nii.gz", "label": [7], "lung_image": "same.nii.gz", "patient": "a"},
        {"image": "./filled1.nii.gz", "lung_image": "same.nii.gz"},
        {"image": "./filled2.nii.gz", "label": [1], "lung_image": "empty.nii.gz"},
    ]
    items = classified(folder, MEANS, LABELS, lung_image="same.nii.gz") + bad
    network = mean_bundle(folder / "bundles" / "tiny-covid")
    return evaluate(network, read_datalist(listed(folder, items)), when=WHEN, settings=SETTINGS)


def test_each_case_has_its_probability_or_the_reason_why_not(judged: Evaluation) -> None:
    probabilities = [case.probabilities[1] for case in judged.cases if isinstance(case, CaseClassification)]
    assert probabilities == pytest.approx([1 / (1 + math.exp(-4 * mean)) for mean in MEANS], abs=2e-3)
    assert [one.code for one in judged.failures] == ["evaluate.no-truth", "evaluate.no-truth", "lung.none"]
    assert "its label is [7]; expected one number of 0 (no), 1 (yes)" in judged.failures[0].reason


def test_a_classifier_is_judged_by_its_probabilities(judged: Evaluation) -> None:
    summary = judged.classification
    assert summary is not None and summary.discrimination is not None
    assert summary.discrimination.area.auc == pytest.approx(8 / 9)
    assert summary.counts == {"no": 3, "yes": 3}
    assert (summary.discrimination.sensitivity, summary.discrimination.specificity) == (1, 0)
    assert summary.accuracy == 0.5
    at_80 = summary.discrimination.points[0]
    assert at_80.sensitivity == pytest.approx(2 / 3) and at_80.specificity == 1


def test_the_judgement_of_a_classifier_is_written(judged: Evaluation, tmp_path: Path) -> None:
    value = evaluation_json(judged)
    assert value["summary"]["auc"]["value"] == pytest.approx(8 / 9, abs=1e-5)
    assert value["roc"]["thresholds"][0] is None, "infinity"
    assert sum(one["count"] for one in value["reliability"]["before"]) == 6
    if shutil.which("pdftotext"):
        text = pages(report_pdf(judged), tmp_path)
        assert "area under the ROC curve for yes" in text and "Temperature" in text and "Reliability" not in text[:50]


def test_sensitivity_is_that_of_the_positive_and_specificity_that_of_the_others() -> None:
    given = [(0, 0.2), (0, 0.7), (0, 0.4), (0, 0.1), (1, 0.9), (1, 0.3)]
    cases = [CaseClassification(case=f"{p}", label=label, probabilities=(1 - p, p)) for label, p in given]
    found = sum_up_classification(cases, {0: "no", 1: "yes"}).discrimination
    assert found is not None and (found.sensitivity, found.specificity) == (0.5, 0.75)


def test_one_class_alone_has_no_roc_curve(folder: Path, tmp_path: Path) -> None:
    items = classified(folder, [0.1, 0.5], [1, 1], lung_image="same.nii.gz")
    network = mean_bundle(tmp_path / "tiny-covid")
    found = evaluate(network, read_datalist(listed(folder, items)), when=WHEN, settings=SETTINGS)
    assert found.classification is not None and found.classification.discrimination is None
    assert "so there is no ROC curve" in found.classification.not_computed
    assert report_pdf(found).startswith(b"%PDF")


def test_without_a_lung_mask_the_lung_bundle_makes_one(folder: Path, tmp_path: Path) -> None:
    threshold_bundle(tmp_path / "my-lung")
    network = mean_bundle(tmp_path / "tiny-covid", margin_voxels=0)
    models = ModelSettings(lung="my-lung", folders=(str(tmp_path),))
    settings = Settings(runtime=SETTINGS.runtime, models=models)
    image(box(), folder / "box.nii.gz", hu=-800)
    for keys in ({}, {"lung_image": "same.nii.gz"}):
        items: list[dict[str, object]] = [{"image": "box.nii.gz", "label": [1], **keys}]
        (case,) = evaluate(network, read_datalist(listed(folder, items)), when=WHEN, settings=settings).cases
        assert isinstance(case, CaseClassification)
        expected = 1 / (1 + math.exp(-4 * 0.2)) if keys else 0.5
        assert (case.probabilities[1] == pytest.approx(expected, abs=1e-3)) == bool(keys), "the corner widens the box"


def test_the_part_is_chosen_and_an_empty_one_refused(folder: Path, bundle: Bundle) -> None:
    data = read_datalist(listed(folder, entries()[:1], part="training"))
    with pytest.raises(BadConfig, match=r"list.json: nothing to measure in 'validation'; list cases there, or choose"):
        evaluate(bundle, data, when=WHEN, settings=SETTINGS)
    assert len(evaluate(bundle, data, when=WHEN, settings=SETTINGS, split=Split.ALL).cases) == 1


def test_the_command_writes_tables_and_report_and_says_what_failed(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    from carina.cli.evaluate import evaluate as command

    file = listed(folder, [entries()[0], entries()[4]])
    arguments = [str(bundle.folder), "--data", str(file), "--out", str(tmp_path / "out"), "--plan", "original"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 3, done.output
    assert (
        "dice" in done.output
        and f"failed: missing: {folder}/missing.nii.gz: no such file. [file.missing]" in done.output
    )
    assert "1/2 ct: Dice 1.000" in done.output and RESEARCH_ONLY in done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cases.csv",
        "evaluation.json",
        "report.pdf",
        "summary.csv",
    ]
