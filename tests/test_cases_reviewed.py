"""What readers accepted and corrected: the list that training reads, and figures of agreement with hand-made truth."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from carina.api.compared import scanned_on
from carina.api.result import Run
from carina.cases.checks import check_data
from carina.cases.datalist import DataList, read_datalist, without
from carina.cases.purpose import Purpose, Task
from carina.cli.cases import cases
from carina.corrections.decisions import decide
from carina.corrections.finish import Draft, finish
from carina.corrections.masks import MaskName, network_mask
from carina.corrections.reviewed import (
    REVIEWED_COLUMNS,
    Reviewed,
    agreement,
    reviewed,
    reviewed_list,
    runs_below,
    write_reviewed,
)
from carina.corrections.standing import Decision
from carina.errors import BadConfig
from carina.volume.files import read_mask
from test_corrections_finished import made_run
from viewer_runs import posed, write_run

NOW = datetime(2026, 3, 4, 20, 15, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: lesions accepted, corrected (half is left) and rejected, and one that nobody looked at."""
    place = tmp_path_factory.mktemp("runs")
    for name in ("accepted", "corrected", "rejected", "unseen"):
        write_run(posed("plain", (24, 48, 48)), place / name)
    decide(Run(place / "accepted"), MaskName.LESION, Decision.ACCEPTED, "Jane Doe", NOW)
    decide(Run(place / "accepted"), MaskName.LUNG, Decision.ACCEPTED, "Jane Doe", NOW)
    decide(Run(place / "rejected"), MaskName.LESION, Decision.REJECTED, "Roe", NOW)
    run = Run(place / "corrected")
    draft = Draft(layer=MaskName.LESION, labels=half(run), revision=3, reader="Roe", at=NOW)
    finish(run, draft, None)
    return place


def half(run: Run) -> np.ndarray:
    labels = network_mask(run, MaskName.LESION).labels.copy()
    places = np.flatnonzero(labels)
    labels.reshape(-1)[places[: len(places) // 2]] = 0
    return labels


def test_the_list_has_what_was_accepted_or_corrected_and_training_takes_it(folder: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "list.json", tmp_path / "reviewed.csv"
    done = CliRunner().invoke(cases, [str(folder), "--out", str(out), "--csv", str(table)], catch_exceptions=False)
    assert "2 cases of 3 runs whose masks a reader has looked at." in done.output
    (left_out,) = [line for line in done.output.splitlines() if line.startswith("left out")]
    assert left_out.startswith(f"left out: lesion mask of {(folder / 'rejected').resolve()}, rejected by Roe, 2026-")
    data = read_datalist(out)
    accepted, corrected = (data.training[number] for number in (0, 1))
    assert Path(accepted.label_image).parent == (folder / "accepted" / "lesion").resolve()
    assert Path(accepted.lung_image).parent == (folder / "accepted" / "lung").resolve()
    assert corrected.lung_image == ""
    learnt = read_mask(Path(corrected.label_image)).labels
    np.testing.assert_array_equal(learnt, half(Run(folder / "corrected")))
    report = check_data(replace(data, validation=data.training[:1]), Purpose(task=Task.LESION))
    assert not [one for one in report.problems if "mask" in one or "grid" in one]
    check_table(list(csv.DictReader(table.open())), data)


def check_table(rows: list[dict[str, str]], data: DataList) -> None:
    """A row for each mask that was looked at; those that hold are the list's, by file and by case."""
    assert tuple(rows[0]) == REVIEWED_COLUMNS
    assert [(Path(row["run"]).name, row["mask"], row["decision"]) for row in rows] == [
        ("accepted", "lung", "accepted"),
        ("accepted", "lesion", "accepted"),
        ("corrected", "lesion", "corrected"),
        ("rejected", "lesion", "rejected"),
    ]
    assert float(rows[2]["dice"]) == pytest.approx(2 / 3, abs=0.01)
    assert rows[3]["reader_ml"] == rows[3]["dice"] == rows[3]["mask_image"] == ""
    assert rows[2]["decided_at"] == "2026-03-04T20:15:02Z"
    listed = {(case.image, case.label_image) for case in data.training}
    assert listed == {(row["image"], row["mask_image"]) for row in rows[:3] if row["mask"] == "lesion"}
    assert {row["case"] for row in rows} == {case.name for case in data.training} == {"1.2.3"}


def test_a_case_of_the_table_is_found_in_the_list_by_case_and_patient(tmp_path: Path) -> None:
    """``leave_out`` of a training takes either; the study date is for who reads the table."""
    run, _ = made_run("plain", tmp_path)
    decide(run, MaskName.LESION, Decision.ACCEPTED, "Jane Doe", NOW)
    table = tmp_path / "reviewed.csv"
    write_reviewed(list(reviewed(run.folder)), table)
    (row,) = csv.DictReader(table.open())
    data = reviewed_list([run.folder], tmp_path / "list.json")
    assert row["patient"] and row["patient"] == data.training[0].patient
    assert row["study_date"] == f"{scanned_on(run)}" != "None"
    for name in (row["case"], row["patient"]):
        assert without(data, [name]).training == ()


def test_volumes_and_dice_of_each_case(folder: Path) -> None:
    (accepted,) = (one for one in reviewed(folder / "accepted") if one.layer is MaskName.LESION)
    assert (accepted.dice, accepted.difference_ml, accepted.reader) == (1.0, 0.0, "Jane Doe")
    (corrected,) = reviewed(folder / "corrected")
    assert corrected.reader_ml == pytest.approx(corrected.network_ml / 2, rel=0.02)
    (rejected,) = reviewed(folder / "rejected")
    assert rejected.difference_ml is None
    assert list(reviewed(folder / "unseen")) == []


def test_a_rejection_after_a_correction_takes_the_case_out(folder: Path, tmp_path: Path) -> None:
    run = Run(write_run(posed("plain", (24, 48, 48)), tmp_path / "run"))
    finish(run, Draft(layer=MaskName.LESION, labels=half(run), revision=1, reader="Roe", at=NOW), None)
    assert len(reviewed_list([run.folder], tmp_path / "list.json").training) == 1
    decide(run, MaskName.LESION, Decision.REJECTED, "Jane Doe", NOW)
    assert reviewed_list([run.folder], tmp_path / "list.json").training == ()


def row(network_ml: float, reader_ml: float | None, dice: float | None) -> Reviewed:
    decision = Decision.REJECTED if dice is None else Decision.CORRECTED
    return Reviewed(
        case="a",
        patient="",
        run="a",
        study_date=None,
        image="",
        mask_image="",
        layer=MaskName.LESION,
        decision=decision,
        correction=1,
        reader="x",
        at=NOW,
        network_ml=network_ml,
        reader_ml=reader_ml,
        dice=dice,
    )


def test_limits_of_agreement_are_those_of_bland_and_altman() -> None:
    found = agreement([row(12, 10, 0.9), row(10, 10, 0.8), row(11, 14, 0.5), row(9, None, None)], MaskName.LESION)
    assert found.counts == {"accepted": 0, "corrected": 3, "rejected": 1}
    assert found.median_dice == 0.8
    assert found.mean_ml == pytest.approx(-1 / 3)
    assert found.lowest_ml == pytest.approx(-1 / 3 - 1.96 * 2.516611, abs=1e-5)
    assert found.highest_ml == pytest.approx(-1 / 3 + 1.96 * 2.516611, abs=1e-5)
    alone = agreement([row(12, 10, 0.9)], MaskName.LESION)
    assert (alone.mean_ml, alone.lowest_ml) == (2.0, None)
    assert agreement([row(9, None, None)], MaskName.LESION).median_dice is None


def test_a_folder_without_a_decision_is_refused(folder: Path) -> None:
    with pytest.raises(BadConfig, match="holds no run whose masks a reader has looked at"):
        runs_below([folder / "unseen"])
    seen = [folder / name for name in ("accepted", "corrected", "rejected")]
    assert runs_below([folder / "accepted", folder]) == seen
