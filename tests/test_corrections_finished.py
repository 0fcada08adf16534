"""Finished corrections: the object is what was painted, beside what the run left; decisions of readers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from pydicom import Dataset, dcmread

from carina.api.result import Run
from carina.corrections.decisions import decide, decision_on, readers_state
from carina.corrections.finish import Draft, Finished, Unchanged, finish, finished_folder, finished_of, reader_mask
from carina.corrections.masks import MaskName, decisions_file, network_mask, strokes_file
from carina.corrections.standing import Decision
from carina.dicom import seg_reader
from carina.dicom.find import choose_source, find_series
from carina.dicom.objects import save_object
from carina.dicom.seg import segmentation
from carina.dicom.seg_reader import person_name
from carina.dicom.series import Series
from carina.errors import BadConfig, BadSeries, ModelFailed
from carina.service.viewer.found import readers_words
from carina.volume import Mask
from dicom_objects_samples import PRODUCER, errors_of, placed, truth
from viewer_runs import POSES, posed, through_dicom, write_run

NOW = datetime(2026, 3, 4, 20, 15, 2, tzinfo=UTC)


def made_run(pose: str, folder: Path) -> tuple[Run, Series]:
    phantom = through_dicom(posed(pose, (24, 48, 48)), folder / "series")
    names = {1: "COVID-19 lesion"}
    phantom = replace(
        phantom,
        lesion=replace(phantom.lesion, names=names, made_by="lesion-net 1.0 " + "e" * 64),
        lung=replace(phantom.lung, labels=(phantom.lung.labels > 0).astype(np.uint8), names={1: "lungs"}),
    )
    source = choose_source(find_series(folder / "series").found, uid=phantom.volume.uid)
    assert isinstance(source, Series)
    run = Run(write_run(phantom, folder / "run"))
    (run.folder / "dicom").mkdir()
    save_object(segmentation(phantom.lesion, source, PRODUCER), run.folder / "dicom" / "lesion-seg.dcm")
    return run, source


def speckled(mask: Mask) -> Mask:
    """The mask with its edge changed here and there, and a voxel in every corner of the volume."""
    labels = mask.labels.copy()
    chance = np.random.default_rng(5)
    labels[chance.random(labels.shape) < 0.01] = 1
    labels[(chance.random(labels.shape) < 0.3) & (mask.labels > 0)] = 0
    for corner in np.ndindex(2, 2, 2):
        labels[tuple(-step for step in corner)] = 1
    return replace(mask, labels=labels)


def draft_of(mask: Mask, layer: MaskName = MaskName.LESION, reader: str = "Jane van Doe") -> Draft:
    return Draft(layer=layer, labels=mask.labels, revision=7, reader=reader, at=NOW)


@pytest.mark.parametrize("pose", [*POSES, "oblique"])
def test_the_finished_object_is_what_was_painted_voxel_for_voxel(tmp_path: Path, pose: str) -> None:
    run, source = made_run(pose, tmp_path)
    network = network_mask(run, MaskName.LESION)
    mask = speckled(network)
    finished = finish(run, draft_of(mask), source)
    path = finished_folder(run.folder, MaskName.LESION, 1) / "dicom" / "lesion-seg.dcm"
    assert errors_of(path) == []
    np.testing.assert_array_equal(placed(path, tmp_path / "itk")[1], truth(mask, 1))
    np.testing.assert_array_equal(reader_mask(run, MaskName.LESION).labels, mask.labels)
    before = dcmread(run.folder / "dicom" / "lesion-seg.dcm")
    check_maker(dcmread(path), before)
    check_references(dcmread(path), before, finished, source)
    assert finished.reader_ml == pytest.approx(np.count_nonzero(mask.labels) * mask.grid.voxel_ml)


def test_what_was_painted_outside_the_lungs_is_said_of_the_ratio(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    network, lung = (network_mask(run, layer) for layer in (MaskName.LESION, MaskName.LUNG))
    labels = network.labels.copy()
    labels[:2, :8, :8] = 1
    assert not lung.labels[:3, :9, :9].any()
    finish(run, draft_of(replace(network, labels=labels)), source)
    measured = readers_state(run).measured
    assert measured and measured.reader_ratio_percent == pytest.approx(measured.network_ratio_percent)
    (said,) = measured.warnings
    assert re.fullmatch(r"[\d.]+ ml marked as lesion lie outside the lungs and were left out\.", said)
    assert said.rstrip(".") in readers_words(readers_state(run))
    finish(run, draft_of(network), source)
    assert finished_of(run.folder, MaskName.LESION)[-1].warnings == ()


def check_maker(dataset: Dataset, before: Dataset) -> None:
    assert dataset.ContentCreatorName == "Doe^Jane van"
    assert dataset.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert "lesion-net" in dataset.SegmentSequence[0].SegmentAlgorithmName
    assert dataset.ContentQualification == "RESEARCH"
    assert "research use only. Not for diagnosis. This mask was corrected by a reader." in dataset.ImageComments
    assert dataset.SOPInstanceUID != before.SOPInstanceUID
    assert dataset.SeriesInstanceUID != before.SeriesInstanceUID


def check_references(dataset: Dataset, before: Dataset, finished: Finished, source: Series) -> None:
    group = dataset.ReferencedSeriesSequence[1]
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == source.uid
    assert group.SeriesInstanceUID == before.SeriesInstanceUID
    assert group.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert finished.replaces_uid == before.SOPInstanceUID
    assert finished.seg_uid == dataset.SOPInstanceUID


def test_a_second_correction_replaces_the_first_and_the_run_stays_as_it_was(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    kept = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    network = network_mask(run, MaskName.LESION)
    half = replace(
        network, labels=network.labels * (np.arange(network.labels.shape[0]) > 8)[:, None, None].astype(np.uint8)
    )
    first = finish(run, draft_of(half), source)
    nothing_left = np.zeros_like(network.labels)
    nothing_left[3:6, 20:24, 30:34] = 1 - (network.labels[3:6, 20:24, 30:34] > 0)
    second = finish(run, draft_of(replace(network, labels=nothing_left), reader="Roe"), source)
    check_second(run, first, second)
    assert finished_of(run.folder, MaskName.LESION) == [first, second]
    assert {path: path.read_bytes() for path in kept} == kept


def check_second(run: Run, first: Finished, second: Finished) -> None:
    assert (first.number, second.number) == (1, 2)
    assert second.replaces_uid == first.seg_uid != second.seg_uid
    dataset = dcmread(finished_folder(run.folder, MaskName.LESION, 2) / "dicom" / "lesion-seg.dcm")
    assert dataset.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
    assert "SegmentAlgorithmName" not in dataset.SegmentSequence[0]
    assert first.network_ratio_percent == run.stored("volume-ratio.json")["regions"][0]["ratio_percent"]
    assert 0 < (first.reader_ratio_percent or 0) < (first.network_ratio_percent or 0)
    assert 0 < first.dice < 1
    assert second.dice == 0


def test_an_empty_correction_and_a_lung_of_two_sides_are_valid_objects(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    lung, lesion = (network_mask(run, layer) for layer in (MaskName.LUNG, MaskName.LESION))
    finish(run, draft_of(replace(lesion, labels=np.zeros_like(lesion.labels))), source)
    empty = finished_folder(run.folder, MaskName.LESION, 1) / "dicom" / "lesion-seg.dcm"
    assert errors_of(empty) == []
    assert not np.frombuffer(dcmread(empty).PixelData, np.uint8).any()
    done = finish(run, draft_of(lung, MaskName.LUNG), source)
    assert done.reader_ratio_percent == 0.0
    sides = finished_folder(run.folder, MaskName.LUNG, 1) / "dicom" / "lung-seg.dcm"
    assert errors_of(sides) == []
    found = placed(sides, tmp_path / "itk")
    assert len(found) == 2 and sum(map(len, found.values())) == np.count_nonzero(lung.labels)


def test_another_series_as_source_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    mask = network_mask(run, MaskName.LESION)
    with pytest.raises(BadSeries, match=r"source has series uid 9\.9, the run was made from 1\.2\.3"):
        finish(run, draft_of(mask), replace(source, uid="9.9"))
    assert finished_of(run.folder, MaskName.LESION) == []
    assert [path.name for path in (run.folder / "corrections").iterdir()] == [".finish.lock"]
    assert decision_on(run, MaskName.LESION) is None


def test_an_object_that_is_not_what_was_painted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, source = made_run("plain", tmp_path)

    def mirrored(mask: Mask, *others: Any) -> Dataset:
        return segmentation(replace(mask, labels=np.ascontiguousarray(mask.labels[:, :, ::-1])), *others)

    monkeypatch.setattr(seg_reader, "segmentation", mirrored)
    with pytest.raises(ModelFailed, match="is not the mask"):
        finish(run, draft_of(network_mask(run, MaskName.LESION)), source)
    assert finished_of(run.folder, MaskName.LESION) == []


def test_two_corrections_of_a_run_are_not_finished_at_once(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    mask = network_mask(run, MaskName.LESION)
    (run.folder / "corrections").mkdir()
    with FileLock(run.folder / "corrections" / ".finish.lock"), pytest.raises(BadConfig, match="is being finished"):
        finish(run, draft_of(mask), source)
    assert finish(run, draft_of(mask), source).number == 1
    with pytest.raises(Unchanged, match="as correction 1 of Jane van Doe left it, so there is nothing to finish"):
        finish(run, draft_of(mask), source)  # who waited for the first
    assert len(finished_of(run.folder, MaskName.LESION)) == 1


def test_a_volume_file_gives_mask_and_ratio_without_an_object(tmp_path: Path) -> None:
    run, _ = made_run("plain", tmp_path)
    done = finish(run, draft_of(network_mask(run, MaskName.LESION)), None)
    assert (done.seg_uid, done.dice) == ("", 1.0)
    assert done.reader_ratio_percent == pytest.approx(done.network_ratio_percent)


def test_decisions_are_about_the_mask_that_is_there_now(tmp_path: Path) -> None:
    run, source = made_run("plain", tmp_path)
    network = network_mask(run, MaskName.LESION)
    decide(run, MaskName.LESION, Decision.REJECTED, "Jane Doe", NOW)
    decide(run, MaskName.LESION, Decision.ACCEPTED, "Jane Doe", NOW)
    decide(run, MaskName.LUNG, Decision.REJECTED, "Roe", NOW)
    said = decision_on(run, MaskName.LESION)
    assert said and (said.decision, said.reader, said.at, said.correction) == (Decision.ACCEPTED, "Jane Doe", NOW, 0)
    finish(run, draft_of(speckled(network)), source)
    said = decision_on(run, MaskName.LESION)
    assert said and (said.decision, said.correction) == (Decision.CORRECTED, 1)
    decide(run, MaskName.LESION, Decision.REJECTED, "Roe", NOW)
    said = decision_on(run, MaskName.LESION)
    assert said and (said.decision, said.correction) == (Decision.REJECTED, 1)
    other = decision_on(run, MaskName.LUNG)
    assert other and other.reader == "Roe"
    stored = [json.loads(line.split(" ", 1)[1]) for line in decisions_file(run.folder).read_text().splitlines()]
    names = ["decision", "reader", "at", "layer", "sha256", "marked_ml", "reason", "painters", "finisher", "number"]
    assert [one["number"] for one in stored] == [0, 0, 0, 1] and set(stored[-1]) == set(names)


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("Jane Doe", "Doe^Jane"),
        ("Doe", "Doe^"),
        ("  Jane  van Doe ", "Doe^Jane van"),
        ("Do^e=\\ X\n", "Do^e X"),
        ("Müller^Anna", "Müller^Anna"),
        ("Müller, Anna", "Müller^Anna"),
        ("van Beek,  Edwin", "van Beek^Edwin"),
        ("Doe^Jane^M^Dr^PhD^x", "Doe^Jane^M^Dr^PhD"),
        ("^Doe,", "Doe^"),
        ("", "unknown^"),
        ("x" * 90, "x" * 64),
    ],
)
def test_a_reader_s_name_is_a_person_name(typed: str, written: str) -> None:
    assert person_name(typed) == written


def test_where_strokes_are(tmp_path: Path) -> None:
    assert strokes_file(tmp_path, MaskName.LUNG) == tmp_path / "corrections" / "lung.strokes"
