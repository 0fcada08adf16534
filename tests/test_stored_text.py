"""The classification as CSV and the ratio as text: written, read back, and read from others."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from carina import RESEARCH_ONLY
from carina.config import Settings
from carina.errors import BadSeries
from carina.measure.findings import Classification, RatioFindings, RegionFindings
from carina.operators.alone import Alone, find_operator, run_alone
from carina.operators.networks import Networks
from carina.operators.ports import ClassificationPort, RatioPort
from carina.operators.stored_text import read_classification, read_ratio, write_classification, write_ratio
from carina.pipeline import ports
from carina.synth.phantom import chest_phantom
from carina.testing.dicom import write_ct_series

PROBABILITIES = {"non-COVID-19": 0.2757, "COVID-19": 0.7243}


def ratio(lesion_ml: float = 185.6434) -> RatioFindings:
    regions = tuple(
        RegionFindings(region=name, lung_ml=3953.1729, lesion_ml=lesion_ml, ratio_percent=lesion_ml / 39.531729)
        for name in ("lungs", "left lung", "right lung upper third")
    )
    return RatioFindings(uid="1.2.3", regions=regions, lesion_count=5, warnings=("10.6 ml do not count: outside.",))


def test_a_classification_is_a_table_of_two_columns(tmp_path: Path) -> None:
    ports.save_value(ClassificationPort, Classification(uid="1.2.3", probabilities=PROBABILITIES), tmp_path)
    with (tmp_path / "classification.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["class", "probability"], ["COVID-19", "0.724"], ["non-COVID-19", "0.276"]]


def test_what_was_not_computed_says_why_in_the_table(tmp_path: Path) -> None:
    reason = 'Not classified. "No lung", and a comma.'
    path = write_classification(Classification(uid="1.2.3", probabilities={}, not_computed=reason), tmp_path)
    assert read_classification(path).not_computed == reason and not read_classification(path).probabilities


NAMES = st.text("abcXYZ019-_ äß", min_size=1, max_size=12).map(str.strip).filter(lambda text: text and not number(text))


def number(text: str) -> bool:
    try:
        return bool(float(text)) or True
    except ValueError:
        return False


@settings(max_examples=80, deadline=None)
@given(names=st.lists(NAMES, min_size=2, max_size=5, unique=True), data=st.data())
def test_what_is_written_is_read_back(
    names: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shares = data.draw(st.lists(st.integers(1, 100), min_size=len(names), max_size=len(names)))
    probabilities = {name: share / sum(shares) for name, share in zip(names, shares, strict=True)}
    folder = tmp_path_factory.mktemp("csv")
    found = read_classification(write_classification(Classification(uid="", probabilities=probabilities), folder))
    assert found.probabilities == {name: pytest.approx(value, abs=6e-4) for name, value in probabilities.items()}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names above numbers.csv", "non-COVID-19,COVID-19\n0.2757,0.7243\n"),
        ("semicolons.csv", "non-COVID-19;0.2757\nCOVID-19;0.7243\n"),
        ("with a header.csv", "Class,Probability\nnon-COVID-19,0.2757\nCOVID-19,0.7243\n"),
        ("byte order mark.csv", "\ufeffclass,probability\r\nnon-COVID-19,0.2757\r\nCOVID-19,0.7243\r\n"),
        ("colons.txt", "Classification of one scan\n\nnon-COVID-19: 0.2757\nCOVID-19: 0.7243\n"),
        ("equals.TXT", "non-COVID-19 = 0.2757\nCOVID-19 = 0.7243"),
        ("percent.txt", "non-COVID-19: 27.57%\nCOVID-19: 72.43%\n"),
    ],
)
def test_the_probabilities_of_others_are_read(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    found = ports.load_folder(ClassificationPort, tmp_path)
    assert found.probabilities == pytest.approx(PROBABILITIES) and found.made_by == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line with the name of a class and a probability from 0 to 1"),
        ("the scan looks healthy\n", "no line with the name of a class"),
        ("COVID-19,1.5\nnon-COVID-19,-0.5\n", "no line with the name of a class and a probability from 0 to 1"),
        ("COVID-19,nan\n", "a probability from 0 to 1"),
        ("COVID-19,0.9\nnon-COVID-19,0.9\n", "sum to 1.8 instead of 1"),
        ('COVID-19,"0.9\n', "unexpected end of data"),
        ("\x00" * 40, "is no classification"),
    ],
)
def test_what_is_no_classification_is_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "result.csv").write_text(text, encoding="utf-8")
    with pytest.raises(BadSeries, match=r"result\.csv: is no classification") as caught:
        ports.load_folder(ClassificationPort, tmp_path)
    assert why in str(caught.value) and "expected lines like 'COVID-19, 0.83'" in str(caught.value)


def test_a_file_too_large_to_be_a_result_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "result.csv").write_bytes(b"a,1\n" * 300_000)
    with pytest.raises(BadSeries, match=r"result\.csv: more than 1000000 bytes"):
        ports.load_folder(ClassificationPort, tmp_path)


@settings(max_examples=60, deadline=None)
@given(junk=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".txt"]))
def test_any_bytes_are_probabilities_or_refused(
    junk: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("junk") / f"junk{suffix}"
    path.write_bytes(junk)
    try:
        found = read_classification(path).probabilities
    except BadSeries:
        return
    assert all(0 <= value <= 1 for value in found.values())


def test_a_ratio_is_text_for_people_and_is_read_back(tmp_path: Path) -> None:
    ports.save_value(RatioPort, ratio(), tmp_path)
    text = (tmp_path / "volume-ratio.txt").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "lungs: lung 3953.173 ml, lesion 185.643 ml, ratio 4.696 %"
    assert RESEARCH_ONLY in text and "lesions: 5" in text
    found = read_ratio(tmp_path / "volume-ratio.txt")
    assert [region.region for region in found.regions] == [region.region for region in ratio().regions]
    for name in ("lung_ml", "lesion_ml", "ratio_percent"):
        read, written = ([getattr(region, name) for region in one.regions] for one in (found, ratio()))
        assert read == pytest.approx(written, abs=5e-4), name
    assert (found.lesion_count, found.warnings) == (5, ratio().warnings)


@pytest.mark.parametrize("text", ["", "ratio: 4.7 %\n", "lungs: lung many ml, lesion 1 ml, ratio 2 %\n"])
def test_what_is_no_ratio_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "ratio.txt").write_text(text)
    with pytest.raises(BadSeries, match=r"ratio\.txt: is no volume ratio \(.+\); expected lines like 'lungs: lung"):
        read_ratio(tmp_path / "ratio.txt")


# The report


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_ct_series(chest_phantom(shape=(40, 200, 200), seed=3).volume, folder)
    return folder


def report(result: Path, study: Path, out: Path) -> str:
    """What the report says that is made from one file."""
    if shutil.which("pdftotext") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("pdftotext is missing; scripts/test installs poppler-utils")
        pytest.skip("pdftotext is not installed")
    asked = Alone(
        operator=find_operator("dicom-report-writer"),
        inputs={"input": result, "dcm": study},
        outputs={"output": out},
        variables={},
    )
    run_alone(asked, (Settings(), Networks(Settings())))
    (made,) = out.iterdir()
    (out / "report.pdf").write_bytes(dcmread(made).EncapsulatedDocument)
    done = subprocess.run(["pdftotext", "-raw", out / "report.pdf", "-"], capture_output=True, check=True)
    return f"{made.stem}: {' '.join(done.stdout.decode().split())}"


@pytest.mark.parametrize("name", ["result.csv", "result.txt"])
def test_the_report_writer_takes_a_classification_as_csv_or_text(name: str, study: Path, tmp_path: Path) -> None:
    """As the specification has it; who made the numbers is then not known, and the report says so."""
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / name).write_text("non-COVID-19,0.2757\nCOVID-19,0.7243\n")
    text = report(tmp_path / "result", study, tmp_path / "out")
    assert text.startswith("classification: ") and "0.72" in text and "0.28" in text
    assert "Which model made the result is not known." in text
    assert "The bundle does not say what it was trained on" in text


def test_the_report_writer_takes_a_ratio_as_text(study: Path, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    write_ratio(ratio(), tmp_path / "result")
    text = report(tmp_path / "result", study, tmp_path / "out").replace("\u00a0", " ")
    assert text.startswith("volume-ratio: ") and "4.70 %" in text and "186 ml of 3 953 ml" in text
    assert "10.6 ml do not count: outside." in text
