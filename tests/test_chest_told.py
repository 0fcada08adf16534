"""What the chest check refuses is said in every output of a run, and nothing is said of a whole chest."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from carina import RESEARCH_ONLY
from carina.api.result import Run
from carina.config import Settings
from carina.dicom.objects import LT_LENGTH
from carina.dicom.seg import segmentation
from carina.measure.joined import join_masks
from carina.measure.lungs import split_lungs
from carina.models.validation import Validation
from carina.operators.catalogue import find_definition
from carina.operators.stored_images import StoredMask
from carina.operators.table import BUILT_IN
from carina.pipeline.definition import load_definition
from carina.pipeline.run import RunOptions, run_pipeline
from carina.service.viewer.found import found_by
from carina.volume.files import read_mask, write_mask
from carina.volume.volume import Mask
from dicom_objects_samples import PRODUCER, errors_of, make_mask, make_series, run, saved, tool
from test_operators import WHEN, TrueNetworks, Truth, folder, phantom, series, truth

__all__ = ["folder", "phantom", "series", "truth"]

SENTENCES = ("Only 12 ml of it has the HU of aerated lung.", "What was taken for lung is gas or foam.")


def run_default(source: Any, out: Path, name: str = "default", networks: type[TrueNetworks] = TrueNetworks) -> Path:
    settings = Settings()
    run_pipeline(
        load_definition(find_definition(name), {}),
        BUILT_IN,
        inputs={"input": source},
        out=out,
        services=(settings, networks(settings)),
        options=RunOptions(clock=lambda: WHEN),
    )
    return out


def comments_of(report: Dataset) -> list[str]:
    items = [one for one in report.ContentSequence if one.ValueType == "TEXT"]
    return [str(one.TextValue) for one in items if one.ConceptNameCodeSequence[0].CodeValue == "121106"]


def pdf_text(path: Path, folder: Path) -> str:
    pdf = folder / f"{path.stem}.pdf"
    dataset = dcmread(path)
    pdf.write_bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
    return " ".join(run(tool("pdftotext"), "-raw", pdf, "-").split())


def outputs(folder: Path, work: Path) -> Iterator[tuple[str, str]]:
    """Each output that must say it, with its words."""
    dicom = folder / "dicom"
    for name in ("lung", "lesion"):
        yield f"{name} SEG", str(dcmread(dicom / f"{name}-seg.dcm").ImageComments)
        (beside,) = (folder / name).glob("*.json")
        yield f"{name} MetaImage", " ".join(json.loads(beside.read_text())["refusals"])
    for name in ("classification", "volume-ratio"):
        yield f"{name} PDF", pdf_text(dicom / f"{name}.dcm", work)
    yield "SR", " ".join(comments_of(dcmread(dicom / "measurements.dcm")))
    found = json.loads((folder / "findings.json").read_text())
    yield "findings.json", " ".join([*found["warnings"], found["not_computed"]])
    with (folder / "findings.csv").open(newline="") as file:
        yield "findings.csv", str(next(csv.DictReader(file))["warnings"])
    yield "manifest", " ".join(json.loads((folder / "manifest.json").read_text())["warnings"])


def foam(answers: Truth) -> tuple[str, ...]:
    """A block of air beside the patient is called lung."""
    answers["lung"] = np.zeros_like(answers["lung"])
    answers["lung"][2:-2, 2:60, 2:60] = 1
    return ("What was taken for lung is gas or foam", "ml of what was taken for lung has the HU of aerated lung")


def nothing(answers: Truth) -> tuple[str, ...]:
    answers["lung"] = np.zeros_like(answers["lung"])
    return ("No lung was found",)


@pytest.mark.parametrize("scan", [foam, nothing])
def test_every_output_says_why_a_scan_is_no_chest(
    scan: Callable[[Truth], tuple[str, ...]], series: Any, truth: Truth, tmp_path: Path
) -> None:
    expected = scan(truth)
    folder = run_default(series, tmp_path / "out")
    for name, words in outputs(folder, tmp_path):
        missing = [one for one in expected if one not in words]
        assert not missing, f"{name} lacks {missing}: {words}"
    for name in ("lung-seg", "lesion-seg"):
        assert_questions(folder / "dicom" / f"{name}.dcm")
    report = folder / "dicom" / "measurements.dcm"
    assert errors_of(report) == []
    assert expected[0] in run(tool("dsrdump"), "+Pl", report), "dcmtk reads it"


def assert_questions(path: Path) -> None:
    dataset = dcmread(path)
    assert dataset.ImageComments.startswith(RESEARCH_ONLY)
    assert dataset.ContentDescription.startswith("Not a chest CT? ")
    assert len(dataset.ContentDescription) <= 64
    assert errors_of(path) == []


def test_a_whole_chest_is_not_called_into_question(series: Any, truth: Truth, tmp_path: Path) -> None:
    folder = run_default(series, tmp_path / "out")
    for name, words in outputs(folder, tmp_path):
        assert not re.search("taken for lung|No lung|Only .* ml|Not a chest|Not classified", words), f"{name}: {words}"
    for name in ("lung-seg", "lesion-seg"):
        dataset = dcmread(folder / "dicom" / f"{name}.dcm")
        assert dataset.ImageComments == RESEARCH_ONLY
        assert "chest" not in dataset.ContentDescription
    assert comments_of(dcmread(folder / "dicom" / "measurements.dcm")) == []


LIMIT = "It can't tell one pneumonia from another."


class LimitedNetworks(TrueNetworks):
    """Their bundles say what they can't tell."""

    def bundle(self, task: str) -> Any:
        bundle = super().bundle(task)
        bundle.carina = msgspec.structs.replace(bundle.carina, validation=Validation(trained_on="a", limits=(LIMIT,)))
        return bundle


def test_what_a_probability_cannot_tell_stands_beside_it_everywhere(series: Any, truth: Truth, tmp_path: Path) -> None:
    folder = run_default(series, tmp_path / "out", networks=LimitedNetworks)
    told = {
        "SR": comments_of(dcmread(folder / "dicom" / "measurements.dcm")),
        "PDF": pdf_text(folder / "dicom" / "classification.dcm", tmp_path),
        "findings.json": json.loads((folder / "findings.json").read_text())["limits"],
        "page": found_by(Run(folder)).limits,
    }
    assert [where for where, words in told.items() if LIMIT not in words] == []
    truth["lung"] = np.zeros_like(truth["lung"])
    refused = run_default(series, tmp_path / "refused", networks=LimitedNetworks)
    assert json.loads((refused / "findings.json").read_text())["limits"] == []


def test_slices_for_a_pacs_that_shows_no_segmentation_say_it_too(series: Any, truth: Truth, tmp_path: Path) -> None:
    foam(truth)
    folder = run_default(series, tmp_path / "out", "default-overlay")
    files = sorted((folder / "dicom").rglob("overlay*.dcm"))
    assert files
    assert {"gas or foam" in str(dcmread(file).ImageComments) for file in files} == {True}
    assert errors_of(files[0]) == []


def refused(*, two: bool = True) -> Mask:
    return replace(make_mask(make_series(), two=two), refusals=SENTENCES)


@pytest.mark.parametrize(
    "derive",
    [
        split_lungs,
        lambda mask: join_masks(make_mask(make_series(), two=False), mask).lung,
        lambda mask: join_masks(make_mask(make_series(), two=False), mask).lesion,
        lambda mask: join_masks(make_mask(make_series(), two=False, empty=True), mask).lesion,
        lambda mask: join_masks(join_masks(make_mask(make_series(), two=False), mask).lesion, mask).lesion,
    ],
    ids=["sides", "lungs with lesions", "lesions in lungs", "no lesions", "joined twice"],
)
def test_what_is_derived_keeps_the_refusals(derive: Callable[[Mask], Mask]) -> None:
    assert derive(refused()).refusals == SENTENCES
    assert derive(make_mask(make_series())).refusals == ()


def test_a_stored_mask_keeps_refusals_and_warnings(tmp_path: Path) -> None:
    mask = replace(refused(), warnings=("It was read askew.", SENTENCES[0]))
    (tmp_path / "one").mkdir()
    back = StoredMask.load(StoredMask.save(mask, tmp_path / "one", lambda value: ()))
    assert (back.refusals, back.warnings) == (mask.refusals, mask.warnings)
    assert back.told == (*SENTENCES, "It was read askew.")


def test_a_mask_that_others_wrote_keeps_what_its_file_was_warned_of(tmp_path: Path) -> None:
    """Nothing beside it says anything: the reader's own warnings stay."""
    write_mask(make_mask(make_series()), tmp_path / "mask.mhd")
    text = (tmp_path / "mask.mhd").read_text().replace("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", "")
    (tmp_path / "mask.mhd").write_text(text)
    expected = read_mask(tmp_path / "mask.mhd").warnings
    assert StoredMask.load([tmp_path / "mask.mhd"]).warnings == expected


@pytest.mark.parametrize(
    "sentence", ["caf\xe9 \u6f22\u5b57", "a\\b", "a\tb\r\nc", "\ud800 lone", "\x1b$B", "x" * 20_000], ids=ascii
)
def test_any_sentence_makes_a_valid_object(sentence: str, tmp_path: Path) -> None:
    series = make_series()
    path = saved(segmentation(replace(refused(), warnings=(sentence,)), series, PRODUCER), tmp_path)
    assert errors_of(path) == []
    read = str(dcmread(path).ImageComments)
    assert read.isprintable() and len(read) <= LT_LENGTH
    assert read.startswith(f"{RESEARCH_ONLY} {' '.join(SENTENCES)}")


def test_the_question_comes_before_what_the_field_has_no_room_for() -> None:
    maker = replace(PRODUCER, model_name="a network with a name that is longer than the field")
    dataset = segmentation(refused(), make_series(), maker)
    assert dataset.ContentDescription == "Not a chest CT? left lung, right lung by a network with a name t"


def test_a_remark_is_no_refusal() -> None:
    mask = replace(make_mask(make_series()), warnings=("The scan ends inside the lungs.",))
    dataset = segmentation(mask, make_series(), PRODUCER)
    assert dataset.ImageComments == f"{RESEARCH_ONLY} The scan ends inside the lungs."
    assert "chest" not in dataset.ContentDescription
