"""What verbs print of strangers' data, and what convert writes of it: one line each, nothing outside, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from called import called
from carina.cli import series as listing
from carina.cli.terminal import say_fields, say_json, say_table
from carina.dicom.find import Found
from carina.errors import BadSeries
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series
from cohorts import CHEST, files_beside, study, volume_file
from reading_slices import write_series

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")

SOME_FAILED = 3
COLUMNS = 8
ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Every code point, lone surrogates and control characters too."""


def carina(*words: str | Path, **environment: str) -> CompletedProcess[str]:
    with patch.dict(os.environ, environment):
        return called(*map(str, words), folder=Path())


def hostile(text: str) -> Found:
    name = text.replace("\0", "").replace("/", "") or "x"
    return Found(
        path=Path("/archive") / name,
        uid=text,
        part=text,
        modality=text,
        description=text,
        kernel=text,
        slices=3,
        slice_spacing_mm=float("nan"),
        error=BadSeries("series.rule", text),
        reason=text,
    )


@given(ANY_TEXT)
def test_a_series_is_one_line_of_as_many_fields(capsys: pytest.CaptureFixture[str], text: str) -> None:
    capsys.readouterr()
    listing._print_lines([hostile(text)] * 2)
    lines = capsys.readouterr().out.split("\n")
    assert [line.count("\t") for line in lines] == [COLUMNS - 1, COLUMNS - 1, 0]
    assert len("\n".join(lines).splitlines()) == 2
    listing._print_records([hostile(text)])
    assert "\x1b" not in capsys.readouterr().out


@given(ANY_TEXT, st.floats())
def test_json_is_what_every_parser_takes(capsys: pytest.CaptureFixture[str], text: str, number: float) -> None:
    capsys.readouterr()
    say_json([{**listing.facts(hostile(text)), f"our own {text}": (number, [text])}])
    out = capsys.readouterr().out
    found = msgspec.json.decode(out.encode())  # takes neither NaN nor lone surrogates
    assert found == json.loads(out)
    assert found[0]["description"] == text.encode("utf-8", "backslashreplace").decode()
    assert found[0]["slice_spacing_mm"] is None


def test_a_table_keeps_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    say_table(("case", "Dice"), [("a\tb\nc", "0.5"), ("\x1b[2Jlonger", "10.25")])
    say_fields("a\tb", "c")
    assert capsys.readouterr().out.split("\n") == [
        "case         Dice",
        "a b c         0.5",
        " [2Jlonger  10.25",
        "a b\tc",
        "",
    ]


def test_a_description_with_control_characters_is_one_line(data: Path) -> None:
    """faults/control-characters"""
    done = carina("series", data / "faults" / "control-characters")
    lines = done.stdout.splitlines()
    assert [line.count("\t") for line in lines if line.startswith(("no\t", "taken\t", "fits\t"))] == [COLUMNS - 1]
    assert json.loads(carina("series", data / "faults" / "control-characters", "--json").stdout)


@pytest.mark.parametrize("uid", ["../../../escaped", "/tmp/carina-escaped", "..", "50% done", "a" * 300])
def test_convert_writes_nothing_outside(tmp_path: Path, uid: str) -> None:
    """faults/uid-path-traversal"""
    write_series(tmp_path / "in", CHEST, StudyInstanceUID=uid, SeriesInstanceUID=uid)
    out = tmp_path / "deep" / "er" / "out"
    out.mkdir(parents=True)
    before = files_beside(out, tmp_path)
    done = carina("convert", tmp_path / "in", "-o", out, "--format", "nrrd")
    assert done.returncode == 0, done.stderr
    assert len(list(out.iterdir())) == 1
    assert files_beside(out, tmp_path) == before
    assert not Path("/tmp/carina-escaped.nrrd").exists()


def test_convert_of_the_faults_folder_writes_nothing_outside(data: Path, tmp_path: Path) -> None:
    done = carina("convert", data / "faults" / "uid-path-traversal", "-o", tmp_path / "a" / "b" / "out")
    assert done.returncode in (0, SOME_FAILED), done.stderr
    assert len(list((tmp_path / "a" / "b" / "out").iterdir())) == 3
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "out"] == []


def test_convert_keeps_what_shares_a_name_apart_and_its_results_out(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        write_series(tmp_path / patient, CHEST, PatientID=patient)
    volume_file(tmp_path / "s1" / "ct.nii.gz")
    volume_file(tmp_path / "s2" / "ct.nii.gz")
    first = carina("convert", tmp_path, "-o", tmp_path / "out", "--format", "metaimage")
    assert first.returncode == 0, first.stderr
    assert "4 of 4 series converted" in first.stdout
    names = sorted(path.name for path in (tmp_path / "out").glob("*.mhd"))
    assert len(names) == 4
    second = carina("convert", tmp_path, "-o", tmp_path / "out", "--format", "metaimage")
    assert second.stdout == first.stdout
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mhd")) == names


def test_a_fault_of_ours_in_one_series_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import carina.dicom.read as reading
    from carina.cli import convert

    def read_source(source: Any) -> object:
        if source.uid == "1.2.1":
            raise LookupError("odd\nnumber")
        return real(source)

    real = reading.read_source
    monkeypatch.setattr(reading, "read_source", read_source)
    for uid in ("1.1", "1.2", "1.3"):
        study(tmp_path / "in" / uid, uid)
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--format", "nrrd"]
    with pytest.raises(SystemExit) as ended:
        convert.convert.main(words)
    assert ended.value.code == SOME_FAILED
    said = capsys.readouterr()
    assert "2 of 3 series converted" in said.out
    assert said.err.startswith("failed: series 1.2.1: this is a fault of Carina's (LookupError at test_listing:")
    assert said.err.endswith("[bug.LookupError]\n") and said.err.count("\n") == 1
    monkeypatch.setenv("CARINA_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        convert.convert.main(words)
    assert "in read_source" in capsys.readouterr().err


@pytest.mark.parametrize(("slices", "is_taken"), [(40, True), (4, False)])
def test_a_listing_says_that_it_judges_by_headers(tmp_path: Path, slices: int, *, is_taken: bool) -> None:
    write_ct_series(chest_phantom(shape=(slices, 192, 192), lesions=0, seed=2).volume, tmp_path)
    plain = carina("series", tmp_path).stdout
    assert plain.startswith("taken" if is_taken else "no")
    assert ("\nnote: judged by headers alone; pixel data is decoded" in plain) == is_taken
    (told,) = json.loads(carina("series", tmp_path, "--json").stdout)
    assert (told["taken"], told["judged_by"]) == (is_taken, "headers")
