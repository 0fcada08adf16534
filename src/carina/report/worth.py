"""What a result is worth, in a reader's words: from what the bundle says of itself, never from what we hope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from carina.models.validation import Figure, Measured, SeenBefore, Validation

NOT_SAID = "The bundle does not say what it was trained on, nor how it was tested."

NOT_CALIBRATED = "The number is not calibrated: 0.9 does not mean that nine in ten such scans show COVID-19."

PROBABILITY = (
    "It is a network's answer to this one scan, not the chance that this patient has COVID-19: that also depends on "
    "how common the disease is, on symptoms and on tests."
)

ABSTENTION = (
    "No number is given for a scan without the lungs of a chest, or whose lungs lie outside the limits that a "
    "classifier sets around those of its training, nor where less disease is marked than a classifier that says so can "
    "see. Scans that are unlike its training in other ways are answered all the same."
)

NO_NUMBER = (
    "That there is no number is no finding: it says nothing about disease, present or absent.",
    "Read the images; if the lungs are in them, look at the masks before trying again.",
)

LESION_WORTH = (
    "Lesion is what a network marked. Vessels, collapsed lung and motion can be marked too, faint or small lesions "
    "missed: nothing marked does not exclude disease.",
    "The ratio depends on both outlines, that of the lesions and that of the lungs.",
)

SEEN_WORDS = {
    SeenBefore.NEVER: "never seen in training",
    SeenBefore.CHOICES: "not trained on, used to choose",
    SeenBefore.TRAINING: "seen in training",
}

Worth = Mapping[str, Sequence[str]]
"""Sentences by the name of the model that they are about; without a name: about the result."""


def probability_worth(model: tuple[str, Validation | None]) -> Worth:
    """What a class probability of a model is worth."""
    name, validation = model
    calibration = validation.calibration if validation else ""
    calibrated = f"It was calibrated: {calibration}." if calibration else NOT_CALIBRATED
    return {"": (PROBABILITY, calibrated, ABSTENTION), name: validation_words(validation)}


def ratio_worth(models: Sequence[tuple[str, Validation | None]]) -> Worth:
    """What a lesion to lung ratio is worth that models made together."""
    return {"": LESION_WORTH, **{name: validation_words(validation) for name, validation in models}}


def validation_words(validation: Validation | None) -> list[str]:
    """What a model was trained on, each test in a sentence, and its limits."""
    if validation is None:
        return [NOT_SAID]
    return [
        f"Trained on {validation.trained_on}.",
        *(f"{_sentence(test)}." for test in validation.tests),
        *validation.limits,
    ]


def _sentence(test: Measured) -> str:
    what = f"{test.count} {test.data}" if test.count else test.data
    what += f" ({SEEN_WORDS[test.seen]})" if test.seen else ""
    return f"{what[:1].upper()}{what[1:]}: {', '.join(_figure(figure) for figure in test.figures)}"


def _figure(figure: Figure) -> str:
    """``AUC 0.94 (95 % interval 0.90 to 0.97)``, or ``Dice 0.97 to 0.98`` where only a range is known."""
    spread = f"{_number(figure.low, figure)} to {_number(figure.high, figure)}"
    if figure.value is None:
        shown = spread
    else:
        shown = _number(figure.value, figure) + ("" if figure.low is None else f" (95 % interval {spread})")
    return f"{figure.name} {shown} {figure.unit}".rstrip()


def _number(value: float | None, figure: Figure) -> str:
    """Two decimals of what lies between 0 and 1, three where two would read as certain; two digits of anything else."""
    if value is None:
        return ""
    if figure.unit:
        return f"{value:.2g}"
    return f"{value:.3f}" if 0.995 <= value < 1 else f"{value:.2f}"
