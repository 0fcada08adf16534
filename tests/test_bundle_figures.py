"""What bundles say of their own worth is what was measured, and what they call unseen was not trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
import pytest

from carina.evaluate.card_figures import FEWEST_CHESTS
from carina.models.bundle import SHIPPED, Bundle, load_bundle
from carina.models.first_look import first_look_of
from carina.models.validation import Figure, Measured, SeenBefore, Validation
from carina.report.worth import validation_words

NAMES = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())


def shipped(name: str) -> tuple[Bundle, Validation]:
    bundle = load_bundle(SHIPPED / name)
    assert bundle.carina.validation is not None
    return bundle, bundle.carina.validation


def looks(bundle: Bundle) -> Iterator[Bundle]:
    yield bundle
    if (first := first_look_of(bundle)) is not None:
        yield first


def patients(cases: tuple[str, ...]) -> set[str]:
    """By whom cases are: two scans of one patient differ in their last word."""
    return {re.sub("-(chest|abdomen|belly)$", "", case) for case in cases}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_of_a_report_is_what_its_metrics_say(name: str) -> None:
    bundle, validation = shipped(name)
    assert validation.tests and all(test.figures for test in validation.tests)
    for figure in (figure for test in validation.tests for figure in test.figures):
        values = [bundle.eval_metrics[key] for key in figure.metrics]
        assert values, f"{figure.name}: no metrics are named"
        assert figure.value is None or figure.value == values[0], figure
        assert figure.low is None or (figure.low, figure.high) == (min(values), max(values)), figure
        assert len(values) == 1 or figure.low is not None, f"{figure.name} has metrics that it does not show"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_over_cases_has_the_metric_of_each_of_them(name: str) -> None:
    """A range is that of all cases of the test and of no others; the best of them can't be picked."""
    _, validation = shipped(name)
    for test in (test for test in validation.tests if test.count == len(test.cases) > 1):
        for figure in test.figures:
            assert sorted(key.split()[-1] for key in figure.metrics) == sorted(test.cases), figure


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_unseen_was_trained_on_by_no_network_that_has_a_say(name: str) -> None:
    bundle, validation = shipped(name)
    trained = {case for look in looks(bundle) for case in shipped(look.name)[1].trained_cases}
    assert validation.trained_cases
    for test in validation.tests:
        assert not re.search("never|unseen|not trained", test.data), "`seen` says it, which is checked"
        if test.seen is SeenBefore.TRAINING:
            assert set(test.cases) <= trained, test.data
        elif test.seen is not None:
            assert not patients(test.cases) & patients(tuple(trained)), test.data


@pytest.mark.parametrize("name", NAMES)
def test_the_card_names_every_case_that_was_trained_on_and_says_that_nothing_was_left_untouched(name: str) -> None:
    bundle, validation = shipped(name)
    card = bundle.card.read_text(encoding="utf-8")
    assert [case for case in validation.trained_cases if case not in card] == []
    assert "- No figure here comes from a test set that was left untouched" in card


@pytest.mark.parametrize("name", NAMES)
def test_no_interval_is_given_that_takes_parts_of_one_patient_for_patients(name: str) -> None:
    bundle, validation = shipped(name)
    assert [key for key in bundle.eval_metrics if "95 %" in key and key.startswith("slice")] == []
    for test in validation.tests:
        shown = [figure.name for figure in test.figures if figure.value is not None and figure.low is not None]
        assert not shown or len(test.cases) >= FEWEST_CHESTS, shown


def test_a_calibration_has_the_error_that_was_measured() -> None:
    bundle, validation = shipped("covid-densenet")
    error = bundle.eval_metrics["expected calibration error, calibrated"]
    assert f"an expected error of {error:.2f} on" in validation.calibration
    assert [name for name in NAMES if shipped(name)[1].calibration] == ["covid-densenet"]


def test_the_classifier_says_first_what_it_does_with_patients_that_it_has_not_seen() -> None:
    _, validation = shipped("covid-densenet")
    first, second, *_ = validation_words(validation)[1:]
    assert first == (
        "4 patients without COVID-19, with tumours, collapse or quiet breathing (never seen in training): "
        "probability 0.96 to 0.999."
    )
    assert second == "10 patients without COVID-19 (seen in training): probability 0.03 to 0.11."
    (lowest,) = (figure.low for figure in validation.tests[0].figures)
    assert lowest is not None and f"{lowest:.2f} or more to all four" in validation.limits[0]


TEST = Measured(data="chests", figures=(Figure(name="Dice", value=0.9),), cases=("a", "b"))


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (SeenBefore.NEVER, "Chests (never seen in training): Dice 0.90."),
        (SeenBefore.CHOICES, "Chests (not trained on, used to choose): Dice 0.90."),
        (SeenBefore.TRAINING, "Chests (seen in training): Dice 0.90."),
        (None, "Chests: Dice 0.90."),
    ],
)
def test_what_had_touched_a_test_before_is_said_in_its_sentence(seen: SeenBefore | None, words: str) -> None:
    test = msgspec.structs.replace(TEST, seen=seen)
    assert validation_words(Validation(trained_on="lungs", tests=(test,)))[1:] == [words]


@pytest.mark.parametrize("seen", [SeenBefore.NEVER, SeenBefore.CHOICES])
def test_cases_that_were_trained_on_are_not_unseen(seen: SeenBefore) -> None:
    test = msgspec.structs.replace(TEST, seen=seen)
    with pytest.raises(ValueError, match="'chests' can't be unseen: trained_cases names b too"):
        Validation(trained_on="lungs", tests=(test,), trained_cases=("b", "c"))
    with pytest.raises(ValueError, match=f"'chests' are seen '{seen}', but cases does not name them"):
        Measured(data="chests", figures=TEST.figures, seen=seen)


@pytest.mark.parametrize(("value", "shown"), [(0.994, "0.99"), (0.9962, "0.996"), (1.0, "1.00"), (0.0, "0.00")])
def test_a_figure_that_is_not_certain_does_not_read_so(value: float, shown: str) -> None:
    test = Measured(data="chests", figures=(Figure(name="Dice", value=value),))
    assert validation_words(Validation(trained_on="lungs", tests=(test,)))[1] == f"Chests: Dice {shown}."
