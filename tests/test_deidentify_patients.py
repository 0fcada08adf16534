"""Whose a series is, is known by all of its slices: two patients never share a pseudonym, nor one of them a volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import UID

from carina.api.study import RunSettings, run
from carina.dicom.find import choose_source, find_series
from carina.dicom.series import Series
from carina.errors import BadSeries, CarinaError
from carina.operators.deidentify import deidentify
from carina.synth.phantom import Phantom, chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from test_deidentify import SETTINGS, context_in

Named = Callable[[int], tuple[str, str]]
"""Patient ID and name of a slice."""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return chest_phantom(shape=(36, 200, 200), lesions=0, seed=4)


def written(phantom: Phantom, folder: Path, named: Named, prefix: str = "") -> Sequence[Path]:
    files = write_ct_series(phantom.volume, folder, settings=SeriesSettings(shuffled=False))
    for number, file in enumerate(files):
        dataset = dcmread(file)
        dataset.PatientID, dataset.PatientName = named(number)
        dataset.SOPInstanceUID = UID(f"{dataset.SOPInstanceUID}{prefix}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dcmwrite(file, dataset, enforce_file_format=True)
    return files


def series_in(folder: Path) -> Series:
    source = choose_source(find_series(folder))
    assert isinstance(source, Series)
    return source


def pseudonym(source: Series, folder: Path) -> str:
    folder.mkdir()
    made = deidentify(source, settings=SETTINGS, context=context_in(folder)).source
    assert isinstance(made, Series)
    return str(made.header.PatientID)


NAMED: dict[str, Named] = {
    "each slice": lambda _: ("7", "Doe"),
    "all but the first": lambda number: ("", "") if number == 0 else ("7", "Doe"),
    "the fourth alone": lambda number: ("7", "Doe") if number == 4 else ("", ""),
}


def test_whichever_slices_name_the_patient_the_pseudonym_is_theirs(phantom: Phantom, tmp_path: Path) -> None:
    found = set()
    for how, named in NAMED.items():
        written(phantom, tmp_path / how, named)
        found.add(pseudonym(series_in(tmp_path / how), tmp_path / f"{how} run"))
    written(phantom, tmp_path / "other", lambda _: ("8", "Doe"))
    assert len(found) == 1
    assert pseudonym(series_in(tmp_path / "other"), tmp_path / "other run") not in found


def test_where_each_slice_names_another_none_of_them_is_the_patient(phantom: Phantom, tmp_path: Path) -> None:
    written(phantom, tmp_path / "up", lambda number: (f"{number}", f"N{number}"))
    written(phantom, tmp_path / "down", lambda number: (f"{35 - number}", f"N{35 - number}"))
    up, down = (pseudonym(series_in(tmp_path / one), tmp_path / f"{one} run") for one in ("up", "down"))
    assert up == down


def mixed(phantom: Phantom, folder: Path) -> tuple[Series, Series]:
    """Two patients' series, of one Series Instance UID, in one folder."""
    written(phantom, folder / "a", lambda _: ("7", "Doe"))
    written(phantom, folder / "b", lambda _: ("8", "Roe"), prefix="9")
    found = [one.source for one in find_series(folder)]
    one, other = (source for source in found if isinstance(source, Series))
    assert one.uid == other.uid
    return one, other


def test_a_folder_of_several_patients_is_parted_and_none_has_the_others_pseudonym(
    phantom: Phantom, tmp_path: Path
) -> None:
    found = {pseudonym(one, tmp_path / f"run{number}") for number, one in enumerate(mixed(phantom, tmp_path / "ct"))}
    assert len(found) == 2


def test_slices_of_several_patients_that_are_handed_over_as_one_are_refused(phantom: Phantom, tmp_path: Path) -> None:
    one, other = mixed(phantom, tmp_path / "ct")
    both = replace(one, instances=(*one.instances[:5], *other.instances[5:]))
    with pytest.raises(BadSeries, match="slices of 2 patients are in it: give each one's a folder") as refused:
        pseudonym(both, tmp_path / "run")
    assert refused.value.code == "deidentify.patients"
    assert "Doe" not in refused.value.message and not list((tmp_path / "run").iterdir())


ONLY = """
api-version: 0.4.0
name: only
operators:
- name: deidentify
  container: {image: carina/deidentify}
  input:
  - {path: /input}
  output:
  - {path: /output, name: series}
  - {path: /dicom, name: dicom}
"""


def test_a_run_on_a_folder_of_several_patients_reads_one_of_them_or_none(phantom: Phantom, tmp_path: Path) -> None:
    mixed(phantom, tmp_path / "ct")
    (tmp_path / "only.yaml").write_text(ONLY)
    try:
        done = run(tmp_path / "ct", tmp_path / "run", RunSettings(settings=SETTINGS, pipeline=tmp_path / "only.yaml"))
    except CarinaError as error:
        assert "patient 1 of 2" in error.message
        return
    assert len(done.dicom) == 36 and len({str(dcmread(one).PatientID) for one in done.dicom}) == 1
