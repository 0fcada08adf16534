"""What pages say of findings: warnings at the headline, classes in one order, many lesions in a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from carina.api.result import Run
from carina.measure.findings import Classification, RegionFindings, in_class_order
from carina.measure.texts import ml_text, percent_text
from carina.report.whereabouts import LONG_LIST, whereabouts
from carina.service.viewer.found import found_by
from test_viewer_pages import asked, text_of
from viewer_runs import posed, served, write_run

MANY = LONG_LIST + 1


def region(name: str, lesion_ml: float) -> RegionFindings:
    return RegionFindings(region=name, lung_ml=1000.0, lesion_ml=lesion_ml, ratio_percent=lesion_ml / 10)


def lungs(left: tuple[float, ...], right: tuple[float, ...]) -> list[RegionFindings]:
    """Both lungs with the lesions of their upper, middle and lower thirds; of one volume each without thirds."""
    sides = {"left lung": left, "right lung": right}
    found = [region("lungs", sum(left + right)), *(region(side, sum(parts)) for side, parts in sides.items())]
    words = ("upper third", "middle third", "lower third")
    for side, parts in sides.items():
        found += [region(f"{side} {word}", ml) for word, ml in zip(words, parts, strict=False) if len(parts) > 1]
    return found


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ((0.0, 10.0, 40.0), (5.0, 5.0, 40.0), "Mostly lower third (80 % of the lesion volume), in both lungs."),
        (
            (0.0, 0.0, 4.0),
            (60.0, 30.0, 6.0),
            "Mostly upper third (60 % of the lesion volume), in the right lung (96 %).",
        ),
        ((20.0, 20.0, 20.0), (10.0, 10.0, 20.0), "Spread over the thirds, in both lungs."),
        ((90.0,), (10.0,), "Lesions lie in the left lung (90 %)."),
        ((50.0,), (50.0,), "Lesions lie in both lungs."),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), ""),
    ],
)
def test_many_lesions_are_summed_up(left: tuple[float, ...], right: tuple[float, ...], said: str) -> None:
    assert whereabouts(lungs(left, right), MANY) == said
    assert whereabouts(lungs(left, right), LONG_LIST) == ""


@pytest.mark.parametrize("likely", [0.1, 0.9])
def test_classes_stand_in_one_order_whatever_their_values(likely: float, tmp_path: Path) -> None:
    found = Classification(uid="1.2.3", probabilities={"non-COVID-19": 1 - likely, "COVID-19": likely})
    assert list(in_class_order(found.probabilities)) == ["COVID-19", "non-COVID-19"]
    run = Run(write_run(posed("plain", (24, 48, 48)), tmp_path / "run", found))
    assert list(run.probabilities) == [name for name, _ in found_by(run).probabilities] == ["COVID-19", "non-COVID-19"]
    assert (tmp_path / "run/steps/classification/classification.csv").read_text().splitlines()[1].startswith("COVID")


@pytest.mark.parametrize("page", ["/", "/report"])
def test_warnings_stand_at_the_headline_and_lead_to_all_of_them(page: str, tmp_path: Path) -> None:
    with served(write_run(posed("plain", (24, 48, 48)), tmp_path / "run")) as address:
        html = asked(address + page)[1].decode()
    first = re.search(r'<p class="warned".*?</p>', html)
    assert first and first.start() < html.index('class="headline"') < html.index('id="warnings"')
    assert 'href="#warnings"' in first[0]
    assert "1 warning : Two slices were missing." in text_of(first[0].encode())
    assert "nothing marked does not exclude disease" in html


@pytest.mark.parametrize(
    ("value", "ml", "percent"),
    [
        (26.62, "26.6", "26.6"),
        (4010.4, "4\u00a0010", "4010.4"),
        (99.97, "100", "100.0"),
        (9.997, "10.0", "10.0"),
        (0.342, "0.3", "0.34"),
        (0.01, "< 0.1", "0.01"),
        (0.0, "0", "0"),
    ],
)
def test_figures_claim_no_more_than_is_known(value: float, ml: str, percent: str) -> None:
    assert (ml_text(value), percent_text(value)) == (ml, percent)
