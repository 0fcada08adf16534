"""Whose slices are that name nobody is read once for each, however many there are, and again once one has changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from sqlalchemy import update

from carina.database import ARRIVAL
from carina.dicom.patients import patient_named_in
from carina.service.dicomweb import of_patients
from carina.service.dicomweb.held import Held
from carina.service.dicomweb.of_patients import patients_parts
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import hold, opened, serving

BATCHES, SLICES = 3, 4


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose patient is read."""
    found: list[Path] = []

    def noted(path: Path) -> str:
        found.append(path)
        return patient_named_in(path)

    monkeypatch.setattr(of_patients, "patient_named_in", noted)
    monkeypatch.setattr(of_patients, "_READ", of_patients._PatientsRead())
    return found


@pytest.fixture
def batches(tmp_path: Path) -> Sequence[Sequence[Held]]:
    volume = chest_phantom(shape=(SLICES, 32, 32), lesions=0, seed=5).volume
    return [
        batch(number, write_ct_series(volume, tmp_path / f"{number}", settings=NOBODY)) for number in range(BATCHES)
    ]


NOBODY = SeriesSettings(patient_id="")


def batch(number: int, files: Sequence[Path], *, is_of_one: bool = False) -> Sequence[Held]:
    name = f"arrival {number}"
    return [Held(study_uid="1.2", series_uid="1.3", path=file, batch=name, is_of_one=is_of_one) for file in files]


def test_each_slice_is_read_once_however_often_one_searches(
    batches: Sequence[Sequence[Held]], read: list[Path]
) -> None:
    for _ in range(3):
        for one in batches:
            assert [part.objects for part in patients_parts(one)] == [one]
    assert sorted(read) == sorted(held.path for one in batches for held in one)


def test_of_a_batch_that_has_changed_the_slices_are_read_again(
    batches: Sequence[Sequence[Held]], read: list[Path]
) -> None:
    for one in batches:
        patients_parts(one)
    read.clear()
    dataset = dcmread(batches[1][0].path)
    dataset.PatientID, dataset.PatientName = "OTHER", "Other"
    dataset.save_as(batches[1][0].path)
    os.utime(batches[1][0].path, ns=(1, 1))
    assert [len(patients_parts(one)) for one in batches] == [1, 2, 1]
    assert sorted(read) == sorted(held.path for held in batches[1])


def test_of_what_is_known_to_be_one_patients_one_slice_is_read(
    batches: Sequence[Sequence[Held]], read: list[Path]
) -> None:
    objects = [*batch(0, [one.path for one in batches[0]], is_of_one=True), *batches[1]]
    assert len(patients_parts(objects)) == 1
    assert len(read) == 1 + SLICES


def test_what_was_asked_for_longest_ago_is_forgotten_first(
    batches: Sequence[Sequence[Held]], read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_patients, "BATCHES_KEPT", BATCHES - 1)
    for one in (*batches, batches[-1], batches[0]):
        patients_parts(one)
    assert len(read) == SLICES * (BATCHES + 1)


def test_of_what_came_and_names_nobody_one_slice_is_read(tmp_path: Path, read: list[Path]) -> None:
    volume = chest_phantom(shape=(SLICES, 32, 32), lesions=0, seed=5).volume
    files = write_ct_series(volume, tmp_path / "ct", settings=NOBODY)
    for file in files:
        dataset = dcmread(file)
        dataset.PatientName = ""
        dataset.save_as(file)
    node = opened(tmp_path)
    hold(node, list(files))
    with node.engine.begin() as connection:
        connection.execute(update(ARRIVAL).values(patients=""))
    with serving(node) as url:
        assert len(httpx.get(f"{url}/dicom-web/studies", timeout=60).json()) == 1
    assert len(read) == 1
