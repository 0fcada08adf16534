"""What changed between scans, in sentences and as values over time: the same on a page as in a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from carina.measure.change import LesionChange, ScanFindings
from carina.measure.texts import ml_text, percent_text, whole_text
from carina.report.numbers import MINUS


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """A value at a time: ``when`` is 0 at the first scan and 1 at the last, ``height`` 1 at the highest value."""

    when: float
    height: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """A measure over time; ``top`` is its highest value."""

    title: str
    top: str
    points: tuple[CoursePoint, ...]


def courses(scans: Sequence[ScanFindings]) -> tuple[Course, ...]:
    """Lesion volume and ratio over the scans that have a date, the oldest first; none where all are of one day."""
    dated = sorted(((scan.on, scan.lungs) for scan in scans if scan.on is not None), key=lambda one: one[0])
    days = [(on - dated[0][0]).days for on, _ in dated]
    if not days or not days[-1]:
        return ()
    when = [day / days[-1] for day in days]
    on = [str(day) for day, _ in dated]
    return (
        _course("Lesion ml", when, on, [lungs.lesion_ml for _, lungs in dated], ml_text),
        _course("Ratio %", when, on, [lungs.ratio_percent for _, lungs in dated], percent_text),
    )


def _course(
    title: str, when: Sequence[float], on: Sequence[str], values: Sequence[float], text: Callable[[float], str]
) -> Course:
    top = max(values) or 1.0
    points = tuple(
        CoursePoint(when=at, height=value / top, words=f"{day}: {text(value)}")
        for at, day, value in zip(when, on, values, strict=True)
    )
    return Course(title=title, top=text(top), points=points)


def change_sentences(change: LesionChange) -> tuple[str, ...]:
    """The change of lesions and ratio, and then what else differs between the scans and can be the reason."""
    earlier, later = change.earlier.lungs, change.later.lungs
    if not (earlier.lung_ml and later.lung_ml):
        return ("In one of the two scans no lung was found, so nothing can be compared.",)
    volume = _went(ml_text(earlier.lesion_ml), ml_text(later.lesion_ml))
    ratio = _went(percent_text(earlier.ratio_percent), percent_text(later.ratio_percent))
    share = "" if volume.startswith(_STAYED) else _share(earlier.lesion_ml, change.lesion_ml)
    said = [f"{_since(change.days)}the volume marked as lesion {volume} ml{share}, its ratio to the lungs {ratio} %."]
    if change.is_other_breath:
        much = f"{whole_text(abs(change.lung_percent))} % {'larger' if change.lung_percent > 0 else 'smaller'}"
        said.append(
            f"The lungs are {much} than in the earlier scan ({ml_text(earlier.lung_ml)} and {ml_text(later.lung_ml)} "
            "ml): another breath alone changes the ratio, and how dense the lungs look."
        )
    if change.is_other_network:
        said.append(
            f"The lesions were marked by different networks ({change.earlier.network or 'unknown'}, "
            f"{change.later.network or 'unknown'}): a part of the change can be theirs."
        )
    return tuple(said)


def _since(days: int | None) -> str:
    if days is None:
        return "Between the two scans "
    if days < 0:
        return f"The scan to compare with is {whole_text(-days)} days younger than this one: from there "
    return "On the same day " if days == 0 else "Within 1 day " if days == 1 else f"Within {whole_text(days)} days "


_STAYED = "stayed"


def _went(before: str, after: str) -> str:
    """What became of a volume or a ratio, told of the figures as they are shown.

    It rose or fell where these differ by more than one in the last digit that means anything, or where nothing was
    marked in one of the two scans: less can be rounding alone.
    """
    if before == after:
        return f"{_STAYED} at {after}"
    (earlier, digit), (later, later_digit) = _shown(before), _shown(after)
    if earlier and later and round(abs(later - earlier) / max(digit, later_digit), 3) <= 1:
        return f"{_STAYED} near {after}"
    return f"{'rose' if later > earlier else 'fell'} from {before} to {after}"


def _shown(text: str) -> tuple[float, float]:
    """A figure as it is shown, and what one in its last digit is that means anything: the third, or the last shown."""
    plain = text.removeprefix("< ").replace("\u00a0", "")
    digits = plain.replace(".", "").lstrip("0")
    shown = 10.0 ** -len(plain.partition(".")[2])
    return float(plain), shown * 10.0 ** max(len(digits) - 3, 0)


def _share(before: float, grown: float) -> str:
    """The change as a share of what was there; none where there was too little to be a share of."""
    if before < 1 or not round(100 * grown / before):
        return ""
    sign = "+" if grown > 0 else MINUS
    return f" ({sign}{whole_text(abs(100 * grown / before))} %)"
