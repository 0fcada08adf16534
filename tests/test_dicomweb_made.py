"""DICOMweb over what jobs made: every series of theirs, in whichever folder and study, to those who may see the job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from pydicom import dcmread
from pydicom.uid import UID, EncapsulatedPDFStorage
from sqlalchemy import select

from carina.corrections.standing import Decision
from carina.database import AUDIT
from carina.jobs.reading import Decided
from carina.operators.table import known_operators
from carina.pipeline.foreign import OWN_IMAGES
from carina.service.dicomweb.held import OBJECTS, REPLACING_IMAGES, objects_of, runs_elsewhere, study_uids
from carina.service.node import RunningNode
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from dicomweb_studies import uids
from served_nodes import NOON, add_job, hold, opened, serving, write_result

NEW_STUDY = "2.25.99"

PLACES = sorted(
    {
        operator.places[path]
        for operator in known_operators().images.values()
        for path, kind in operator.outputs.items()
        if kind == "dicom" and path in operator.places
    }
)
"""Where operators of Carina's own put the objects that they make, in a run's folder."""


def scan(folder: Path, study: str = "0") -> list[Path]:
    volume = chest_phantom(shape=(3, 32, 32), lesions=0, seed=5).volume
    return list(write_ct_series(volume, folder / study, settings=SeriesSettings(study=study, shuffled=False)))


def make_slices(node: RunningNode, job: int, files: list[Path], place: str, study: str = "") -> list[str]:
    """A derived series of a job in a folder of its run; gives its instances' UIDs."""
    for number, file in enumerate(files):
        made = dcmread(file)
        made.StudyInstanceUID = study or made.StudyInstanceUID
        made.SeriesInstanceUID = f"2.25.5.{job}.{len(place)}"
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.6.{job}.{len(place)}.{number}")
        path = node.folder / "runs" / str(job) / place / f"made-{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path)
    return [f"2.25.6.{job}.{len(place)}.{number}" for number in range(len(files))]


def found_in(url: str, study: str) -> set[str]:
    """The instances of a study, searched for and retrieved."""
    searched = httpx.get(f"{url}/dicom-web/studies/{study}/instances").json()
    told = httpx.get(f"{url}/dicom-web/studies/{study}/metadata").json()
    assert [one["00080018"] for one in searched] == [one["00080018"] for one in told]
    return {one["00080018"]["Value"][0] for one in searched}


def test_the_operators_put_their_objects_where_results_are_looked_for() -> None:
    assert {"dicom", "dicom/slices", "dicom/overlay", "dicom/ct"} <= set(PLACES)
    assert all(place.split("/")[0] == OBJECTS for place in PLACES)
    images = known_operators().images
    assert all(image.startswith(OWN_IMAGES) for image in images)
    assert {image for image, one in images.items() if one.replaces_input} == REPLACING_IMAGES


@pytest.mark.parametrize("place", [*PLACES, "dicom/slices/second-writer"])
@pytest.mark.parametrize("pipeline", ["default", "default-deidentified", "/pipelines/ours.yaml", None])
def test_what_a_job_made_is_found_wherever_its_operators_put_it(
    tmp_path: Path, place: str, pipeline: str | None
) -> None:
    files, node = scan(tmp_path), opened(tmp_path)
    arrival = hold(node, files)
    job = add_job(node, arrival if pipeline else None, pipeline=pipeline or "default")
    faulted = add_job(node, arrival, ended="faulted")
    make_slices(node, faulted, files, place)
    made = make_slices(node, job, files, place)
    with serving(node) as url:
        study = uids(files[0])[0]
        assert found_in(url, study) == {*made, *(uids(file)[2] for file in files)}
        found = httpx.get(f"{url}/dicom-web/studies/{study}/series").json()
        assert [one["00201209"]["Value"] for one in found] == [[3], [3]]
        assert httpx.get(f"{url}/dicom-web/studies").json()[0]["00201208"]["Value"] == [6]
        instance = f"{url}/dicom-web/studies/{study}/series/2.25.5.{job}.{len(place)}/instances/{made[1]}"
        answer = httpx.get(instance, headers={"Accept": "application/dicom"})
        assert answer.content == (node.folder / "runs" / str(job) / place / "made-1.dcm").read_bytes()
        assert httpx.get(f"{instance}/frames/1").status_code == 200


@pytest.mark.parametrize(
    ("decision", "correction", "held"),
    [
        (Decision.CORRECTED, 1, [1]),
        (Decision.CORRECTED, 12, [12]),
        (Decision.ACCEPTED, 12, [12]),
        (Decision.REJECTED, 12, []),
        (Decision.ACCEPTED, 0, []),
        (Decision.REJECTED, 0, []),
    ],
)
@pytest.mark.parametrize("study", ["", NEW_STUDY])
def test_what_a_reader_made_of_a_mask_is_found_as_long_as_it_holds(
    tmp_path: Path, study: str, decision: Decision, correction: int, held: list[int]
) -> None:
    """In the study of the run's own objects, which stay."""
    files, node = scan(tmp_path), opened(tmp_path)
    said = [Decided(layer="lesion", decision=decision, correction=correction, reader="Roe", at=NOON)]
    kept = msgspec.json.encode(said).decode()
    pipeline = "default-deidentified" if study else "default"
    job = add_job(node, hold(node, files), pipeline=pipeline, decisions=kept)
    own = make_slices(node, job, files[:1], "dicom", study)
    made = {
        number: make_slices(node, job, files[:1], f"corrections/lesion-{number}/dicom", study) for number in (1, 12)
    }
    came = [] if study else [uids(file)[2] for file in files]
    with serving(node) as url:
        assert found_in(url, study or uids(files[0])[0]) == {*came, *own, *(made[one][0] for one in held)}


def paged(url: str) -> list[tuple[str, bool]]:
    """The studies of a node, asked for one by one, and whether there are more."""
    pages = [httpx.get(f"{url}/dicom-web/studies?limit=1&offset={start}") for start in range(4)]
    return [(one["0020000D"]["Value"][0], "warning" in page.headers) for page in pages for one in page.json()]


@pytest.mark.parametrize("pipeline", ["default-deidentified", "/pipelines/ours.yaml", None])
def test_a_series_without_its_patient_is_listed_under_its_own_study(tmp_path: Path, pipeline: str | None) -> None:
    files, node = scan(tmp_path), opened(tmp_path)
    other = scan(tmp_path, "1")
    arrivals = hold(node, other), hold(node, files)
    job = add_job(node, arrivals[1] if pipeline else None, pipeline=pipeline or "default-deidentified")
    made = make_slices(node, job, files, "dicom/ct", NEW_STUDY)
    with serving(node) as url:
        assert found_in(url, NEW_STUDY) == set(made)
        assert found_in(url, uids(files[0])[0]) == {uids(file)[2] for file in files}
        assert paged(url) == [(uids(files[0])[0], True), (uids(other[0])[0], True), (NEW_STUDY, False)]
    with node.engine.connect() as connection:
        looked = connection.execute(select(AUDIT.c.subject).where(AUDIT.c.action == "looked")).scalars().all()
    assert any(NEW_STUDY in subject for subject in looked)


KEEPING = """
api-version: 0.4.0
name: ours
operators:
- name: dicom-reader
  container: {image: carina/dicom-reader}
  input: [{path: /input}]
  output: [{path: /output}]
"""


@pytest.mark.parametrize("image", ["carina/dicom-reader", "carina/deidentify", "example/ours", ""])
def test_what_a_job_made_stays_found_however_its_definition_was_changed_since(tmp_path: Path, image: str) -> None:
    """Changed, by a link to another too, or removed."""
    files, node = scan(tmp_path), opened(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text(KEEPING.replace("carina/dicom-reader", image))
    definition = tmp_path / "ours.yaml"
    definition.symlink_to(other if image else tmp_path / "gone.yaml")
    job = add_job(node, hold(node, files), pipeline=str(definition))
    made = make_slices(node, job, files, "dicom/ct", NEW_STUDY)
    assert [one.sop_instance_uid for one in objects_of(node, NEW_STUDY)] == made
    assert NEW_STUDY in listed(node)


def test_of_a_definition_that_was_not_changed_since_no_files_are_searched_for_other_studies(tmp_path: Path) -> None:
    files, node = scan(tmp_path), opened(tmp_path)
    (tmp_path / "ours.yaml").write_text(KEEPING)
    later = datetime.now(UTC) + timedelta(hours=1)
    job = add_job(node, hold(node, files), pipeline=str(tmp_path / "ours.yaml"), created_at=later)
    write_result(node, job, files[0], EncapsulatedPDFStorage)
    add_job(node, hold(node, scan(tmp_path, "1")))
    assert not runs_elsewhere(node)
    assert len(objects_of(node, uids(files[0])[0])) == 4


def listed(node: RunningNode) -> list[str]:
    return list(study_uids(node, runs_elsewhere(node)))


def test_what_a_job_made_is_shown_to_those_who_may_see_the_job(tmp_path: Path) -> None:
    files, node = scan(tmp_path), opened(tmp_path)
    job = add_job(node, None, pipeline="default-deidentified", project="lungs")
    made = make_slices(node, job, files, "dicom/ct", NEW_STUDY)
    seen, unseen = node.seen_in(frozenset({"lungs"})), node.seen_in(frozenset({"hearts"}))
    assert [one.sop_instance_uid for one in objects_of(seen, NEW_STUDY)] == made
    assert ([*listed(seen)], [*listed(unseen)], objects_of(unseen, NEW_STUDY)) == ([NEW_STUDY], [], [])


def test_what_joins_a_run_that_is_over_is_found(tmp_path: Path) -> None:
    files, node = scan(tmp_path), opened(tmp_path)
    job = add_job(node, hold(node, files))
    study = uids(files[0])[0]
    assert len(objects_of(node, study)) == 3
    for count, place in enumerate(("dicom", "dicom/slices"), start=1):
        make_slices(node, job, files, place)
        assert len(objects_of(node, study)) == 3 + 3 * count
    write_result(node, job, files[0], EncapsulatedPDFStorage)
    assert len(objects_of(node, study)) == 10
