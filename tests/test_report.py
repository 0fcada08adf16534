"""Key slices are the telling ones, pages say what was found and what it is worth."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from carina import RESEARCH_ONLY
from carina.dicom.objects import Producer
from carina.dicom.series import Instance, Series, VolumeFile
from carina.measure.findings import Classification, RatioFindings, RegionFindings
from carina.measure.key_slices import choose_slices
from carina.models.validation import Figure, Measured, Validation
from carina.report.facts import ReportFacts, report_facts
from carina.report.numbers import probability_text
from carina.report.pages import classification_pdf, ratio_pdf
from carina.volume import Grid, Mask
from report_samples import STANDARD, body

WHEN = datetime(2026, 1, 2, 3, 4)

MODEL = Producer(
    model_creator="Carina",
    model_name="lesion-segresnet",
    model_version="0.1.0",
    bundle_sha256="4fe1ab09" * 8,
    software_version="0.1.0",
    when=WHEN,
)

# Key slices


def masks(shape: tuple[int, int, int] = (60, 20, 20)) -> tuple[Mask, Mask]:
    grid = Grid(shape=shape, spacing_mm=(2.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))
    lung, lesion = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    lung[10:50, 2:18, 2:18] = 1
    return (
        Mask(labels=lung, grid=grid, names={1: "lungs"}, uid="u"),
        Mask(labels=lesion, grid=grid, names={1: "lesion"}, uid="u"),
    )


def test_the_largest_lesion_areas_are_chosen_apart_from_each_other() -> None:
    lung, lesion = masks()
    for k, width in ((14, 3), (15, 5), (16, 4), (30, 9), (44, 7)):
        lesion.labels[k, 5:8, 3 : 3 + width] = 1
    chosen = choose_slices(None, lung, lesion, count=3)
    assert [key.index for key in chosen] == [44, 30, 15], "from the head downwards"
    assert all(key.hu is None for key in chosen)
    assert np.count_nonzero(chosen[0].lesion) == 21 and chosen[0].spacing_mm == (1.0, 1.0)


def test_slices_without_a_lesion_are_shown_only_where_there_is_none() -> None:
    lung, lesion = masks()
    assert [key.index for key in choose_slices(None, lung, lesion, count=4)] == [45, 35, 25, 15]
    lesion.labels[12, 5, 5] = 1
    assert [key.index for key in choose_slices(None, lung, lesion, count=4)] == [12]
    nothing = replace(lung, labels=np.zeros_like(lung.labels))
    assert [key.index for key in choose_slices(None, nothing, None, count=3)] == [50, 30, 10]


@settings(max_examples=60, deadline=None)
@given(
    areas=st.lists(st.integers(0, 100), min_size=1, max_size=40),
    lungs=st.integers(0, 40),
    count=st.integers(1, 8),
    head_last=st.booleans(),
)
def test_every_key_slice_has_a_lesion_where_any_slice_has(
    *, areas: list[int], lungs: int, count: int, head_last: bool
) -> None:
    """And the largest area of all is among them, no slice is shown twice, and the order is from the head downwards."""
    up = 1.0 if head_last else -1.0
    grid = Grid(
        shape=(len(areas), 10, 10),
        spacing_mm=(2.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        axes=((0.0, 0.0, up), STANDARD[1], STANDARD[2]),
    )
    labels = np.arange(100).reshape(10, 10) < np.array(areas)[:, None, None]
    lesion = Mask(labels=labels.astype(np.uint8), grid=grid, names={1: "lesion"}, uid="u")
    lung_labels = np.zeros(grid.shape, np.uint8)
    lung_labels[:lungs] = 1
    chosen = choose_slices(None, replace(lesion, labels=lung_labels), lesion, count=count)
    indices = [key.index for key in chosen]
    assert 1 <= len(indices) <= count and len(set(indices)) == len(indices)
    assert indices == sorted(indices, reverse=head_last)
    if any(areas):
        assert all(areas[k] for k in indices) and max(areas) in [areas[k] for k in indices]


# Pages


def header() -> Dataset:
    dataset = Dataset()
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Doe^Jane", "P-<1> & ŁЖα山", "ACC-7"
    dataset.StudyDate, dataset.SeriesDescription, dataset.ConvolutionKernel = "20200304", "Chest 2.0", "B60f"
    return dataset


def facts(grid: Grid | None = None, **more: object) -> ReportFacts:
    place = Instance(path=Path("0.dcm"), sop_instance_uid="1.2.3.1", sop_class_uid="1", position_mm=(0.0, 0.0, 0.0))
    series = Series(
        uid="1.2.3",
        study_uid="1.2",
        frame_of_reference_uid="1.4",
        header=header(),
        instances=(place,),
        rows=2,
        columns=2,
        pixel_spacing_mm=(1.0, 1.0),
        slice_axes=STANDARD,
        warnings=("Gantry tilt of 12.0 degrees was corrected by resampling.",),
    )
    return report_facts(series, (MODEL,), grid, **more)  # type: ignore[arg-type]


REGIONS = (
    "lungs",
    "left lung",
    "right lung",
    *(f"{side} lung {third} third" for side in ("left", "right") for third in ("upper", "middle", "lower")),
)


def ratio(lesion_ml: float = 52.0, *, with_hu: bool = True) -> RatioFindings:
    volume, lung, lesion = body()
    if not lesion_ml:
        lesion = replace(lesion, labels=np.zeros_like(lesion.labels))
    regions = tuple(
        RegionFindings(
            region=name,
            lung_ml=3905.4,
            lesion_ml=lesion_ml,
            ratio_percent=lesion_ml / 39.054,
            lung_mean_hu=-836.0 if with_hu else None,
            lesion_mean_hu=-494.0 if with_hu and lesion_ml else None,
        )
        for name in REGIONS
    )
    return RatioFindings(
        uid="1.2.3",
        regions=regions,
        lesion_count=3 if lesion_ml else 0,
        key_slices=choose_slices(volume if with_hu else None, lung, lesion),
        warnings=("1 lesion of 0.20 ml touches no lung.",),
    )


def text_of(pdf: bytes, folder: Path) -> list[str]:
    """The words of each page, as poppler reads them."""
    if shutil.which("pdftotext") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("pdftotext is missing; scripts/test installs poppler-utils")
        pytest.skip("pdftotext is not installed")
    path = folder / "report.pdf"
    path.write_bytes(pdf)
    done = subprocess.run(["pdftotext", "-raw", path, "-"], capture_output=True, check=True)
    assert done.stderr == b""
    return [" ".join(page.split()) for page in done.stdout.decode().split("\f")[:-1]]


def test_every_font_is_in_the_file() -> None:
    pdf = ratio_pdf(ratio(), facts(body()[0].grid))
    fonts = set(re.findall(rb"/BaseFont /([^ ]+) ", pdf))
    assert len(fonts) == 2 and all(b"+SourceSansPro" in name for name in fonts)
    assert pdf.count(b"/FontFile2") == 2


def test_the_ratio_pages_say_what_was_found(tmp_path: Path) -> None:
    pdf = ratio_pdf(ratio(), facts(body()[0].grid))
    pages = text_of(pdf, tmp_path)
    (first,) = pages
    assert RESEARCH_ONLY in first
    assert "1.33 %" in first and "of the lung volume is marked as lesion" in first
    assert "52.0 ml of 3 905 ml; 3 separate lesions, mean \u2013494 HU" in first.replace("\u00a0", " ")
    assert all(words in first for words in ("P-<1> & ŁЖα[U+5C71]", "ACC-7", "2020-03-04", "Chest 2.0"))
    assert not {"Jane", "Doe"} & set(re.findall(r"\w+", first))
    expected = ("lesion-segresnet 0.1.0", "4fe1ab094fe1ab09", "Gantry tilt of 12.0 degrees", "touches no lung")
    assert all(words in first for words in expected)
    assert [first.count(f"{third} third") for third in ("Upper", "Middle", "Lower")] == [2, 2, 2]
    assert len(pdf) < 1_000_000


def test_thirds_that_are_not_told_are_said_to_be(tmp_path: Path) -> None:
    whole = ratio()
    (first,) = text_of(ratio_pdf(replace(whole, regions=whole.regions[:3]), facts(body()[0].grid)), tmp_path)
    assert first.count("Thirds not told") == 2 and "er third" not in first


def test_the_ratio_page_shows_where_most_lesion_is(tmp_path: Path) -> None:
    (page,) = text_of(ratio_pdf(ratio(), facts(body()[0].grid)), tmp_path)
    assert "Page 1 of 1" in page and "the patient's right (R) is on the left" in page
    assert "Slices with lesion, spread over the lungs" in page


def test_nothing_found_reads_as_a_result(tmp_path: Path) -> None:
    first = text_of(ratio_pdf(ratio(0.0), facts()), tmp_path)[0].replace("\u00a0", " ")
    assert "No lesion was marked in 3 905 ml of lung" in first
    assert "does not exclude disease" in first and "nan" not in first
    assert "Slices through the lungs: no lesion was marked" in first and "Slices with lesion" not in first


def test_no_lung_reads_as_a_result(tmp_path: Path) -> None:
    nothing = tuple(RegionFindings(region=name, lung_ml=0.0, lesion_ml=0.0, ratio_percent=0.0) for name in REGIONS)
    found = RatioFindings(uid="1.2.3", regions=nothing, lesion_count=0)
    assert "No lung was found in this series" in text_of(ratio_pdf(found, facts()), tmp_path)[0]


def test_without_ct_the_pages_show_the_masks_and_no_hu(tmp_path: Path) -> None:
    pages = text_of(ratio_pdf(ratio(with_hu=False), facts()), tmp_path)
    assert len(pages) == 1
    assert "HU" not in pages[0] and "Slices with lesion, spread over the lungs" in pages[0]


def classified(probability: float) -> Classification:
    volume, lung, lesion = body()
    probabilities = {"non-COVID-19": 1 - probability, "COVID-19": probability}
    chosen = choose_slices(volume, lung, lesion, count=3)
    return Classification(uid="1.2.3", probabilities=probabilities, key_slices=chosen)


TESTED = Validation(
    trained_on="synthetic disease; it has seen no patient with COVID-19",
    tests=(
        Measured(
            data="crops with and without synthetic disease",
            count=240,
            figures=(Figure(name="AUC", value=0.936, low=0.904, high=0.968), Figure(name="sensitivity", value=0.813)),
        ),
        Measured(data="patients without disease", figures=(Figure(name="marked", low=0.0033, high=1.09, unit="%"),)),
    ),
    limits=("It cannot tell COVID-19 from other pneumonias.",),
)


def test_the_classification_page_shows_both_probabilities_and_what_they_are_worth(tmp_path: Path) -> None:
    pdf = classification_pdf(classified(0.831), facts(body()[0].grid, validations={"lesion-segresnet": TESTED}))
    (page,) = text_of(pdf, tmp_path)
    assert RESEARCH_ONLY in page and "0.83" in page and "0.17" in page
    assert page.index("0.83") < page.index("0.17")
    told = (
        "not the chance that this patient has COVID-19",
        "The number is not calibrated: 0.9 does not mean that nine in ten such scans show COVID-19.",
        "No number is given for a scan without the lungs of a chest, or whose lungs lie outside the limits that a "
        "classifier sets around those of its training, nor where less disease is marked than a classifier that says so "
        "can see.",
        "Trained on synthetic disease; it has seen no patient with COVID-19.",
        "240 crops with and without synthetic disease: AUC 0.94 (95 % interval 0.90 to 0.97), sensitivity 0.81.",
        "Patients without disease: marked 0.0033 to 1.1 %.",
        "It cannot tell COVID-19 from other pneumonias.",
    )
    assert [words for words in told if words not in page] == []
    assert len(pdf) < 1_000_000


def test_what_was_calibrated_says_how(tmp_path: Path) -> None:
    calibrated = msgspec.structs.replace(TESTED, calibration="temperature 1.7 on 200 scans of two hospitals")
    told = facts(validations={"lesion-segresnet": calibrated})
    (page,) = text_of(classification_pdf(classified(0.5), told), tmp_path)
    assert "It was calibrated: temperature 1.7 on 200 scans of two hospitals." in page
    assert "not calibrated" not in page


def test_a_bundle_that_says_nothing_of_itself_is_not_trusted(tmp_path: Path) -> None:
    (page,) = text_of(classification_pdf(classified(0.5), facts()), tmp_path)
    assert "The bundle does not say what it was trained on, nor how it was tested." in page
    assert "The number is not calibrated" in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "< 0.01"),
        (0.0099, "< 0.01"),
        (0.01, "0.01"),
        (0.725, "0.72"),
        (0.99, "0.99"),
        (0.9901, "> 0.99"),
        (1.0, "> 0.99"),
    ],
)
def test_no_probability_reads_as_certain(value: float, shown: str) -> None:
    assert probability_text(value) == shown


def test_a_classification_that_was_not_computed_says_why(tmp_path: Path) -> None:
    found = Classification(uid="1.2.3", probabilities={}, not_computed="No lung was found, so nothing was classified.")
    (page,) = text_of(classification_pdf(found, facts()), tmp_path)
    assert "No lung was found, so nothing was classified." in page and "0.5" not in page


def test_the_same_values_give_the_same_bytes() -> None:
    assert ratio_pdf(ratio(), facts()) == ratio_pdf(ratio(), facts())


def test_a_volume_file_has_facts_without_a_patient(tmp_path: Path) -> None:
    said = report_facts(VolumeFile(path=Path("a.nii.gz"), uid="a"), (MODEL,), warnings=("No DICOM objects.",))
    assert (said.patient_id, said.series_uid, said.made_at) == ("", "a", WHEN)
    assert "No DICOM objects." in text_of(ratio_pdf(ratio(), said), tmp_path)[0]


def test_what_a_bundle_says_may_be_long(tmp_path: Path) -> None:
    long = msgspec.structs.replace(TESTED, limits=("It was looked at with care, but " + "not for long " * 300,) * 4)
    pages = text_of(ratio_pdf(ratio(), replace(facts(), validations={"lesion-segresnet": long})), tmp_path)
    assert len(pages) > 1 and all(RESEARCH_ONLY in page for page in pages)


@pytest.mark.parametrize("letters", ["\u6c5f\u83ef", "\u0645\u0631", "\U0001f600\U0001f601"])
def test_identifiers_in_letters_that_no_font_has_can_be_told_apart(tmp_path: Path, letters: str) -> None:
    for letter in letters:
        named = replace(
            facts(), patient_id=f"\u0141{letter}-12", accession_number=letter, series_description=letter * 3
        )
        page = text_of(ratio_pdf(ratio(), named), tmp_path)[0]
        code = f"[U+{ord(letter):04X}]"
        assert f"Patient ID \u0141{code}-12" in page and f"Accession {code}" in page and "???" in page
    longest = replace(facts(), patient_id=letters[0] * 64, accession_number=letters[0] * 16)
    assert text_of(ratio_pdf(ratio(), longest), tmp_path)[0].replace(" ", "").count(f"U+{ord(letters[0]):04X}") == 80


def test_many_long_warnings_flow_over_pages(tmp_path: Path) -> None:
    many = tuple(f"Warning {k}: " + "something had to be done to this slice " * 6 for k in range(60))
    pages = text_of(ratio_pdf(ratio(), replace(facts(), warnings=many)), tmp_path)
    assert len(pages) > 3 and all(RESEARCH_ONLY in page for page in pages)
    assert f"Page 3 of {len(pages)}" in pages[2]


def test_slices_that_are_taller_than_wide_still_fit(tmp_path: Path) -> None:
    flat = ratio()
    tall = tuple(replace(key, spacing_mm=(key.spacing_mm[0] * 4, key.spacing_mm[1])) for key in flat.key_slices)
    assert len(text_of(ratio_pdf(flat, facts(), tall), tmp_path)) == 1
