"""Many studies: names from outside, several things under one name, and a cohort's own results."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from carina.api.cohort import run_many
from carina.api.cohort_plan import Each
from carina.api.cohort_table import Fate
from carina.volume import Volume
from cohorts import CHEST, files_beside, how, rows, study, volume_file
from reading_slices import write_series

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


@pytest.mark.parametrize("each", list(Each))
@pytest.mark.parametrize(
    "uid", ["..", ".", "../../../escaped", "/tmp/carina-escaped", "cohort.csv", "a\\b", "50% done"]
)
def test_names_from_outside_stay_inside(tmp_path: Path, uid: str, each: Each) -> None:
    """faults/uid-path-traversal"""
    write_series(tmp_path / "in", CHEST, StudyInstanceUID=uid, SeriesInstanceUID=uid)
    settings = how(tmp_path)
    out = tmp_path / "deep" / "er" / "out"
    out.mkdir(parents=True)
    before = files_beside(out, tmp_path)
    cohort = run_many(tmp_path / "in", out, each, settings)
    assert [row["state"] for row in rows(cohort)] == ["done"]
    assert files_beside(out, tmp_path) == before
    assert not Path("/tmp/carina-escaped").exists()
    assert cohort.items[0].folder is not None and cohort.items[0].folder.parent == out


def test_two_volume_files_of_one_name_are_two_studies(tmp_path: Path) -> None:
    for folder in ("s0001", "s0002", "deep/s0001"):
        volume_file(tmp_path / "in" / folder / "ct.nii.gz")
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    assert [row["name"] for row in rows(cohort)] == ["deep/s0001/ct", "s0001/ct", "s0002/ct"]
    assert len({row["folder"] for row in rows(cohort)}) == 3
    assert cohort.counts[Fate.DONE] == 3


def test_two_acquisitions_under_one_uid_are_two_rows(tmp_path: Path) -> None:
    for number in (1, 2):
        uids: dict[str, Any] = {"SOPInstanceUID": "", "StudyInstanceUID": "1.1", "SeriesInstanceUID": "1.1.1"}
        write_series(tmp_path / "in", CHEST, prefix=f"{number}-", AcquisitionNumber=number, **uids)
    by_series = run_many(tmp_path / "in", tmp_path / "series", Each.SERIES, how(tmp_path))
    assert [row["state"] for row in rows(by_series)] == ["done", "done"]
    assert {row["part"] for row in rows(by_series)} == {"AcquisitionNumber 1", "AcquisitionNumber 2"}
    by_study = run_many(tmp_path / "in", tmp_path / "study", Each.STUDY, how(tmp_path))
    assert sorted(row["state"] for row in rows(by_study)) == ["done", "left out"]


@pytest.mark.parametrize("places", [("a", "b"), ("flat", "flat")])
@pytest.mark.parametrize("each", list(Each))
def test_two_patients_who_share_their_uids_are_two_rows(tmp_path: Path, each: Each, places: tuple[str, str]) -> None:
    heights = ([2.0 * k for k in range(12)], [2.0 * k for k in range(14)])
    for place, patient, slices in zip(places, ("P1", "P2"), heights, strict=True):
        write_series(tmp_path / "in" / place, slices, prefix=f"{patient}-", PatientID=patient)
    first = run_many(tmp_path / "in", tmp_path / "out", each, how(tmp_path))
    assert [row["state"] for row in rows(first)] == ["done", "done"]
    assert len({row["folder"] for row in rows(first)}) == len({row["name"] for row in rows(first)}) == 2
    assert all(patient not in first.table.read_text() for patient in ("P1", "P2"))
    assert sorted(item.run.volume.grid.shape[0] for item in first.items if item.run) == [12, 14]
    seen_again: list[Volume] = []
    again = run_many(tmp_path / "in", tmp_path / "out", each, how(tmp_path, lambda volume: seen_again.append(volume)))
    assert rows(again) == rows(first)
    assert seen_again == []


@pytest.mark.parametrize("patients", [("P1", None), (None, "P1"), ("P1", "P1 ")])
def test_series_of_a_study_without_a_patient_belong_to_its_only_one(
    tmp_path: Path, patients: tuple[str | None, str | None]
) -> None:
    for number, patient in enumerate(patients):
        known: dict[str, Any] = {"PatientID": patient} if patient else {"PatientName": ""}
        write_series(tmp_path / "in", CHEST, SeriesInstanceUID=f"1.{number}", prefix=f"{number}-", **known)
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    assert sorted(row["state"] for row in rows(cohort)) == ["done", "left out"]


def test_a_cohorts_own_results_are_no_studies(tmp_path: Path) -> None:
    """faults/out-inside-archive"""
    study(tmp_path / "1.1", "1.1")
    volume_file(tmp_path / "v" / "ct.nii.gz")
    first = run_many(tmp_path, tmp_path / "out", how=how(tmp_path))
    second = run_many(tmp_path, tmp_path / "out", how=how(tmp_path))
    other = run_many(tmp_path, tmp_path / "other", how=how(tmp_path))
    assert rows(first) == rows(second) == rows(other)
    assert len(rows(first)) == 2


def test_a_study_of_the_faults_folder_that_can_not_be_read_stops_no_other(data: Path, tmp_path: Path) -> None:
    faults = data / "faults" / "each-stops-at-unexpected"
    cohort = run_many(faults, tmp_path / "out", how=how(tmp_path))
    states = {row["place"]: row["state"] for row in rows(cohort)}
    assert states.pop("good") == "done"
    assert set(states.values()) <= {"failed", "done"}


def test_uids_of_the_faults_folder_stay_inside(data: Path, tmp_path: Path) -> None:
    settings = how(tmp_path)
    before = files_beside(tmp_path / "out", tmp_path)
    cohort = run_many(data / "faults" / "uid-path-traversal", tmp_path / "out", Each.SERIES, settings)
    assert {row["state"] for row in rows(cohort)} <= {"done", "failed", "left out"}
    assert len(rows(cohort)) >= 3
    assert files_beside(tmp_path / "out", tmp_path) == before
    assert not Path("/tmp/carina-escaped").exists()


def test_the_faults_archive_with_its_results_inside_has_one_study(data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(data / "faults" / "out-inside-archive", archive)
    first = run_many(archive, archive / "out", how=how(tmp_path))
    second = run_many(archive, archive / "out", how=how(tmp_path))
    assert rows(first) == rows(second)
    assert len(rows(first)) == 1
