"""What a worklist says of what each job runs on: enough to tell studies apart, and nobody's name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from carina.pipeline.manifest import DefinitionRecord, Manifest, write_manifest
from carina.service.node import RunningNode
from carina.service.pages.worklist import WorklistAsked, worklist
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import SeriesSettings, write_ct_series
from served_nodes import add_job, opened

ONE, OTHER = "1.2.826.0.1.3680043.8.498.111111111111", "1.2.826.0.1.3680043.8.498.222222222222"


def write_series(folder: Path, uid: str, description: str) -> None:
    volume = replace(chest_phantom(shape=(3, 16, 16), lesions=0, seed=5).volume, uid=uid)
    write_ct_series(volume, folder, settings=SeriesSettings(description=description, patient_id="SECRET-7"))


def content_of(node: RunningNode, number: int) -> Path:
    content = node.folder / "uploads" / f"{number:032x}" / "content"
    content.mkdir(parents=True)
    return content


def add_upload(node: RunningNode, number: int) -> tuple[int, Path]:
    content = content_of(node, number)
    return add_job(node, source=str(content)), content


def write_inputs(node: RunningNode, job: int, **inputs: object) -> None:
    folder = node.folder / "runs" / str(job)
    folder.mkdir(parents=True)
    made_by = DefinitionRecord(name="d", file="f", sha256="")
    write_manifest(Manifest(fingerprint="", started="", definition=made_by, operators={}, inputs=inputs), folder)


def series_shown(node: RunningNode) -> dict[int, str]:
    return {row.job.id: row.series for row in worklist(node, WorklistAsked())["rows"]}


def ends_shown(node: RunningNode) -> dict[int, str]:
    return {row.job.id: row.series_end for row in worklist(node, WorklistAsked())["rows"]}


@pytest.fixture
def node(tmp_path: Path) -> RunningNode:
    return opened(tmp_path)


def test_an_upload_is_called_by_the_series_that_was_run_of_it(node: RunningNode) -> None:
    job, content = add_upload(node, 1)
    write_series(content / "a-scout", OTHER, "Scout")
    write_series(content / "b-chest", ONE, "Chest 1.0")
    assert series_shown(node)[job] == "uploaded, 6 files"
    write_inputs(node, job, series_uid=ONE)
    assert series_shown(node)[job] == "2020-01-01, Chest 1.0"
    chosen = add_job(node, source=str(content), series_uid=OTHER)
    shown = series_shown(node)
    assert (shown[job], shown[chosen]) == ("2020-01-01, Chest 1.0", "2020-01-01, Scout")
    assert "SECRET" not in str(shown)


def test_before_a_run_an_upload_says_what_all_of_its_files_say(node: RunningNode) -> None:
    job, content = add_upload(node, 1)
    write_series(content, ONE, "Chest 1.0")
    assert series_shown(node)[job] == "2020-01-01, Chest 1.0, 3 files"


def test_a_volume_file_is_called_by_its_name(node: RunningNode) -> None:
    job, content = add_upload(node, 1)
    (content / "scan-7.nii.gz").write_bytes(b"no header")
    run, content = add_upload(node, 2)
    for name in ("first.nii", "second.nii"):
        (content / name).write_bytes(b"no header")
    write_inputs(node, run, kind="volume file", file="second.nii")
    chosen = add_job(node, source=str(content), series_uid="first")
    shown = series_shown(node)
    assert (shown[job], shown[run], shown[chosen]) == ("scan-7.nii.gz", "second.nii", "first.nii")


def test_what_was_handed_in_by_path_is_called_by_the_name_of_its_folder_or_file(node: RunningNode) -> None:
    sources = {"/a/study": ONE, "/b/study": OTHER, "/a/scan.nii.gz": "scan", "/b/scan.nii.gz": ""}
    jobs = [add_job(node, source=source, series_uid=uid) for source, uid in sources.items()]
    shown = series_shown(node)
    assert [shown[job] for job in jobs] == ["study", "study", "scan.nii.gz", "scan.nii.gz"]
    assert [ends_shown(node)[job] for job in jobs] == [ONE[-12:], OTHER[-12:], "", ""]


def test_an_upload_whose_files_are_gone_is_said_to_be_one(node: RunningNode) -> None:
    job, content = add_upload(node, 1)
    shutil.rmtree(content)
    assert series_shown(node)[job] == "uploaded, 0 files"
    write_inputs(node, job, series_uid=ONE)
    assert series_shown(node)[job] == "uploaded files"


def test_series_that_read_the_same_are_known_apart_by_their_uids(node: RunningNode) -> None:
    jobs = []
    for number, uid in enumerate((ONE, OTHER, ONE)):
        job, content = add_upload(node, number)
        write_series(content, uid, "Chest 1.0")
        write_inputs(node, job, series_uid=uid)
        jobs.append(job)
        assert ends_shown(node)[job] == uid[-12:], "whatever stands beside it"
    assert set(series_shown(node).values()) == {"2020-01-01, Chest 1.0"}
    assert ends_shown(node) == dict(zip(jobs, (ONE[-12:], OTHER[-12:], ONE[-12:]), strict=True))
