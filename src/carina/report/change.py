"""What changed between scans, in sentences and as values over time: the same on a page as in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from carina.measure.change import LesionChange, ScanFindings
from carina.measure.texts import ml_text, percent_text, whole_text
from carina.report.numbers import MINUS


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """A value at a time: ``when`` is 0 at the first scan and 1 at the last, ``height`` 1 at the highest value.

    ``is_cut`` says that the scan ends inside the lungs, and the value is of what it shows.
    """

    when: float
    height: float
    words: str
    is_cut: bool


@dataclass(frozen=True, kw_only=True)
class Course:
    """A measure over time; ``top`` is its highest value."""

    title: str
    top: str
    points: tuple[CoursePoint, ...]


def courses(scans: Sequence[ScanFindings]) -> tuple[Course, ...]:
    """Lesion volume and ratio over the scans that have a date, the oldest first; none where all are of one day."""
    dated = sorted(((scan.on, scan) for scan in scans if scan.on is not None), key=lambda one: one[0])
    days = [(on - dated[0][0]).days for on, _ in dated]
    if not days or not days[-1]:
        return ()
    when = [(day / days[-1], scan) for day, (_, scan) in zip(days, dated, strict=True)]
    return (
        _course("Lesion ml", when, [scan.lungs.lesion_ml for _, scan in dated], ml_text),
        _course("Ratio %", when, [scan.lungs.ratio_percent for _, scan in dated], percent_text),
    )


CUT_MARK = "*"


def day_text(scan: ScanFindings) -> str:
    """A scan's date as tables and charts show it, marked where the scan ends inside the lungs."""
    day = str(scan.on or "\u2013")
    return f"{day} {CUT_MARK}" if scan.is_cut else day


def cut_note(scans: Iterable[ScanFindings]) -> str:
    """What the mark of ``day_text`` means; nothing where no scan has it."""
    said = f"{CUT_MARK} The scan ends inside the lungs: its figures are of what it shows of them."
    return said if any(scan.is_cut for scan in scans) else ""


def _course(
    title: str, when: Sequence[tuple[float, ScanFindings]], values: Sequence[float], text: Callable[[float], str]
) -> Course:
    top = max(values) or 1.0
    points = tuple(
        CoursePoint(when=at, height=value / top, words=f"{day_text(scan)}: {text(value)}", is_cut=scan.is_cut)
        for (at, scan), value in zip(when, values, strict=True)
    )
    return Course(title=title, top=text(top), points=points)


def change_sentences(change: LesionChange) -> tuple[str, ...]:
    """The change of lesions and ratio, and then what else differs between the scans and can be the reason."""
    if not (change.earlier.lungs.lung_ml and change.later.lungs.lung_ml):
        return ("In one of the two scans no lung was found, so nothing can be compared.",)
    said = [_became(change)]
    if change.is_cut:
        said.append(_cut(change))
    elif change.is_other_breath:
        said.append(_other_breath(change))
    if change.is_other_network:
        said.append(
            f"The lesions were marked by different networks ({change.earlier.network or 'unknown'}, "
            f"{change.later.network or 'unknown'}): a part of the change can be theirs."
        )
    return tuple(said)


def _became(change: LesionChange) -> str:
    """What became of lesions and ratio. A share is not told where a scan lacks a part of what it is a share of."""
    earlier, later = change.earlier.lungs, change.later.lungs
    volume = _went(ml_text(earlier.lesion_ml), ml_text(later.lesion_ml))
    ratio = _went(percent_text(earlier.ratio_percent), percent_text(later.ratio_percent))
    share = "" if change.is_cut or volume.startswith(_STAYED) else _share(earlier.lesion_ml, change.lesion_ml)
    seen = ", as far as the scans show them" if change.is_cut else ""
    since = _since(change.days)
    return f"{since}the volume marked as lesion {volume} ml{share}, its ratio to the lungs {ratio} %{seen}."


def _other_breath(change: LesionChange) -> str:
    earlier_ml, later_ml = (ml_text(scan.lungs.lung_ml) for scan in (change.earlier, change.later))
    much = f"{whole_text(abs(change.lung_percent))} % {'larger' if change.lung_percent > 0 else 'smaller'}"
    return (
        f"The lungs are {much} than in the earlier scan ({earlier_ml} and {later_ml} ml): another breath alone changes "
        "the ratio, and how dense the lungs look."
    )


def _cut(change: LesionChange) -> str:
    """Which of the scans ends inside the lungs: how their volumes differ tells neither of lesions nor of breath."""
    if change.earlier.is_cut and change.later.is_cut:
        which = "Both scans end inside the lungs: what lies beyond them"
    elif change.later.is_cut:
        which = "This scan ends inside the lungs: what lies beyond it"
    else:
        name = "scan to compare with" if (change.days or 0) < 0 else "earlier scan"
        which = f"The {name} ends inside the lungs: what lies beyond it"
    sizes = f"{ml_text(change.earlier.lungs.lung_ml)} and {ml_text(change.later.lungs.lung_ml)} ml of lung are in view"
    return f"{which} is missing from every volume. {sizes}; volumes and ratio can't be compared as they are."


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
