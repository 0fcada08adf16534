"""Many studies: a row for everything that was found, whatever befalls one of them."""

from __future__ import annotations

import csv
import gc
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread

from carina.api.cohort import run_many
from carina.api.cohort_plan import Each
from carina.api.cohort_table import TEXT_COLUMNS, Fate, Item, read_cohort_table
from carina.config import Settings
from carina.dicom.find import Found, choose_source
from carina.dicom.rules import Rules
from carina.dicom.series import Series, Source
from carina.errors import BadConfig, BadSeries
from carina.operators.networks import Networks
from carina.pipeline.manifest import Provenance
from carina.volume import Volume
from cohorts import CHEST, PIPELINE, how, rows, seen, study, told, volume_file
from reading_slices import write_series


def test_every_series_and_file_has_a_row(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    study(archive / "a", "1.1")
    write_series(archive / "a", CHEST[:6], StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2", prefix="short")
    write_series(archive / "a", CHEST, StudyInstanceUID="1.1", SeriesInstanceUID="1.1.3", prefix="mr", Modality="MR")
    study(archive / "b", "1.2")
    (archive / "b" / "021").unlink()
    volume_file(archive / "s1" / "ct.nii.gz")
    volume_file(archive / "s2" / "ct.nii.gz")
    (archive / "s2" / "broken.nii.gz").write_bytes(b"\x1f\x8bnothing")
    (archive / "notes.txt").write_text("no image")
    cohort = run_many(archive, tmp_path / "out", how=how(tmp_path))
    assert told(cohort) == [
        ("1.1", "done", ""),
        ("series 1.1.2", "left out", "series.other-taken"),
        ("series 1.1.3", "left out", "series.modality"),
        ("series 1.2.1", "failed", "series.gap"),
        ("s1/ct", "done", ""),
        ("s2/broken.nii.gz", "failed", "file.truncated"),
        ("s2/ct", "done", ""),
    ]
    assert cohort.counts == {Fate.DONE: 3, Fate.FAILED: 2, Fate.LEFT_OUT: 2}
    assert [row["place"] for row in rows(cohort)][-3::2] == ["s1/ct.nii.gz", "s2/ct.nii.gz"]
    assert "slices are missing" in rows(cohort)[3]["reason"]
    assert "series 1.1.1 is taken instead" in rows(cohort)[1]["reason"]
    folders = {row["folder"] for row in rows(cohort) if row["state"] == "done"}
    assert {one.name for one in (tmp_path / "out").iterdir() if one.is_dir()} == folders
    again = run_many(archive, tmp_path / "out", how=how(tmp_path))
    assert rows(again) == rows(cohort)


def test_broken_files_have_a_row(tmp_path: Path) -> None:
    study(tmp_path / "in" / "whole", "1.1")
    (tmp_path / "in" / "whole" / "999").write_bytes(b"")
    study(tmp_path / "in" / "cut", "1.2")
    for file in (tmp_path / "in" / "cut").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    found = {row["name"]: (row["state"], row["code"]) for row in rows(cohort)}
    assert found["1.1"] == ("done", "")
    assert found["whole/999"][0] == "left out"
    assert found["cut"][0] == "failed"
    assert "slices" in rows(cohort)[0]["warnings"]
    manifest = cohort.items[0].run.manifest if cohort.items[0].run else None
    assert manifest is not None
    assert {key: manifest.inputs["files"][key] for key in ("used", "broken", "other")} == {
        "used": 12,
        "broken": 1,
        "other": 0,
    }


def test_slices_that_end_before_their_pixels_have_failed_and_have_one_row(tmp_path: Path) -> None:
    study(tmp_path / "in" / "whole", "1.1")
    for file in write_series(tmp_path / "in" / "cut", CHEST):
        data = file.read_bytes()
        file.write_bytes(data[: data.index(b"\x20\x00\x0d\x00UI")])
    table = rows(run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path)))
    assert [(row["state"], row["code"]) for row in table if row["name"] != "1.1"] == [("failed", "series.no-pixels")]


def test_a_series_whose_slice_lost_its_pixels_has_failed_and_a_report_is_left_out(tmp_path: Path) -> None:
    study(tmp_path / "in" / "1.1", "1.1")
    study(tmp_path / "in" / "1.2", "1.2")
    for file, lost in (("1.1/021", ("PixelData",)), ("1.2/021", ("PixelData", "Rows", "Columns"))):
        dataset = dcmread(tmp_path / "in" / file)
        dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.1" if "Rows" not in lost else "1.2.9"
        if "Rows" in lost:
            dataset.SOPClassUID, dataset.SOPInstanceUID = "1.3.12.2.1107.5.9.1", "1.2.9.1"
        for keyword in lost:
            delattr(dataset, keyword)
        dataset.save_as(tmp_path / "in" / file)
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    found = {row["name"]: (row["state"], row["code"]) for row in rows(cohort)}
    assert found["series 1.1.1"] == ("failed", "series.no-pixels")
    assert found["series 1.2.9"] == ("left out", "series.no-image")


def test_a_study_that_can_not_even_be_judged_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "in" / "1.1", "1.1")
    study(tmp_path / "in" / "1.2", "1.2")

    def broken(found: Sequence[Found], rules: Rules) -> Source:
        if found[0].study_uid == "1.1":
            raise IndexError("odd")
        return choose_source(found, rules)

    monkeypatch.setattr("carina.api.cohort_plan.choose_source", broken)
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    assert told(cohort) == [("1.1", "failed", "bug.IndexError"), ("1.2", "done", "")]


def test_each_series_that_fits_gets_a_run(tmp_path: Path) -> None:
    study(tmp_path / "in" / "a", "1.1")
    write_series(tmp_path / "in" / "b", CHEST[:6], StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2")
    write_series(tmp_path / "in" / "c", CHEST, StudyInstanceUID="1.1", SeriesInstanceUID="1.1.3", Modality="MR")
    cohort = run_many(tmp_path / "in", tmp_path / "out", Each.SERIES, how(tmp_path))
    expected = [("1.1.1", "done", ""), ("1.1.2", "done", ""), ("series 1.1.3", "left out", "series.modality")]
    assert told(cohort) == expected


@pytest.mark.parametrize("error", [ValueError("no\nnumber"), MemoryError(), OSError(28, "No space"), RecursionError()])
def test_an_error_that_nobody_foresaw_stops_no_other_study(tmp_path: Path, error: Exception) -> None:
    """faults/each-stops-at-unexpected"""

    def look(volume: Volume) -> object:
        if volume.uid == "1.2.1":
            raise error
        return seen(volume)

    for uid in ("1.1", "1.2", "1.3"):
        study(tmp_path / "in" / uid, uid)
    heard: list[Item] = []
    cohort = run_many(
        tmp_path / "in", tmp_path / "out", how=how(tmp_path, look), tell=lambda item, *_: heard.append(item)
    )
    assert [row["state"] for row in rows(cohort)] == ["done", "failed", "done"]
    code = {MemoryError: "node.memory", OSError: "output.disk-full"}.get(type(error), "operator.raised")
    assert rows(cohort)[1]["code"] == code
    assert [item.fate for item in heard] == [Fate.DONE, Fate.FAILED, Fate.DONE]
    if code == "operator.raised":
        assert "please report it to its makers" in rows(cohort)[1]["reason"]
        traces = list((tmp_path / "out" / "1.2").glob("bug*.txt"))
        assert "in look" in traces[0].read_text()
        assert str(traces[0]) in cohort.failures[0].message


def test_an_error_before_the_pipeline_is_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "in" / "1.1", "1.1")
    study(tmp_path / "in" / "1.2", "1.2")
    from carina.api import study as module

    def provenance(source: Series, settings: Settings, networks: Networks) -> Provenance:
        if source.uid == "1.1.1":
            raise KeyError("lung")
        return real(source, settings, networks)

    real = module.provenance
    monkeypatch.setattr(module, "provenance", provenance)
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    assert told(cohort) == [("1.1", "failed", "bug.KeyError"), ("1.2", "done", "")]
    assert "KeyError: 'lung'" in (tmp_path / "out" / "1.1" / "bug.txt").read_text()


def test_rows_follow_what_lies_there_now(tmp_path: Path) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        study(tmp_path / "in" / uid, uid)
    run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    shutil.rmtree(tmp_path / "in" / "1.1")
    shutil.rmtree(tmp_path / "in" / "1.2")
    write_series(tmp_path / "in" / "1.2", [*CHEST, 24.0], StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1")
    study(tmp_path / "in" / "1.4", "1.4")
    sizes: list[int] = []

    def look(volume: Volume) -> object:
        sizes.append(volume.grid.shape[0])
        return seen(volume)

    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path, look))
    assert [row["name"] for row in rows(cohort)] == ["1.2", "1.3", "1.4"]
    assert sorted(sizes) == [12, 13]


def test_an_interrupted_cohort_has_its_table_and_resumes(tmp_path: Path) -> None:
    for uid in ("1.1", "1.2", "1.3"):
        study(tmp_path / "in" / uid, uid)

    def stop(item: Item, number: int, count: int) -> None:
        assert count == 3
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path), tell=stop)
    with (tmp_path / "out" / "cohort.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "done", "waiting"]
    run_again: list[str] = []

    def look(volume: Volume) -> object:
        run_again.append(volume.uid)
        return seen(volume)

    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path, look))
    assert [row["state"] for row in rows(cohort)] == ["done", "done", "done"]
    assert run_again == ["1.3.1"]


def test_the_table_opens_in_a_spreadsheet_and_as_a_data_frame(tmp_path: Path) -> None:
    study(tmp_path / "in" / "=cmd()", "1.10", SeriesDescription="=1+1")
    volume_file(tmp_path / "in" / "-x\n\x1b[31m" / "@y.nii.gz")
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    text = cohort.table.read_bytes()
    assert text.count(b"\n") == 3 and b"\r" not in text and b"\x1b" not in text
    assert not [cell for row in rows(cohort) for cell in row.values() if cell and cell.strip()[0] in "=+-@"]
    table = cohort.findings
    assert list(table.columns)[: len(TEXT_COLUMNS) - 1] == list(TEXT_COLUMNS[:-1])
    assert sorted(table["study_uid"]) == ["", "1.10"]
    assert table["state"].tolist() == ["done", "done"]


def test_the_mean_hu_of_no_lesion_is_a_number_that_is_none(tmp_path: Path) -> None:
    study(tmp_path / "in" / "a", "1.10")
    cohort = run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path))
    head, line = cohort.table.read_text().splitlines()
    (tmp_path / "findings.csv").write_text(f"{head},left lung lesion_mean_hu\n{line},nan\n{line},-63.5\n")
    found = read_cohort_table(tmp_path / "findings.csv")["left lung lesion_mean_hu"]
    assert found.dtype == float
    assert found.isna().tolist() == [True, False]


def test_memory_does_not_grow_with_the_studies(tmp_path: Path) -> None:
    for uid in range(1, 6):
        study(tmp_path / "in" / str(uid), f"1.{uid}")
    volumes: list[weakref.ref[Volume]] = []
    alive: list[tuple[int, int]] = []

    def look(volume: Volume) -> object:
        volumes.append(weakref.ref(volume))
        return seen(volume)

    def tell(item: Item, number: int, count: int) -> None:
        gc.collect()
        series = sum(isinstance(one, Series) for one in gc.get_objects())
        alive.append((sum(volume() is not None for volume in volumes), series))

    run_many(tmp_path / "in", tmp_path / "out", how=how(tmp_path, look), tell=tell)
    assert [count for count, _ in alive] == [0] * 5
    assert [count for _, count in alive] == sorted((count for _, count in alive), reverse=True)
    assert alive[0][1] > alive[-1][1]


def test_what_is_wrong_for_all_is_said_before_anything_is_run(tmp_path: Path) -> None:
    study(tmp_path / "in", "1.1")
    settings = how(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadConfig, match="can't be written"):
        run_many(tmp_path / "in", tmp_path / "file" / "out", how=settings)
    (tmp_path / "looking.yaml").write_text(PIPELINE.replace("test/look", "test/nothing"))
    with pytest.raises(BadConfig, match="unknown image 'test/nothing'"):
        run_many(tmp_path / "in", tmp_path / "out", how=settings)
    with pytest.raises(BadSeries, match="no such file or folder"):
        run_many(tmp_path / "nowhere", tmp_path / "out", how=how(tmp_path))
    assert not (tmp_path / "out").exists()
