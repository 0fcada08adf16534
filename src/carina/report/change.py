"""What changed between two scans, in sentences: the same on a page as in a report."""

from __future__ import annotations

from carina.measure.change import LesionChange
from carina.report.numbers import MINUS, ml_text, percent_text


def change_sentences(change: LesionChange) -> tuple[str, ...]:
    """The change of lesions and ratio, and then what else differs between the scans and can be the reason."""
    earlier, later = change.earlier.lungs, change.later.lungs
    if not (earlier.lung_ml and later.lung_ml):
        return ("In one of the two scans no lung was found, so nothing can be compared.",)
    volume = f"{_went(ml_text(earlier.lesion_ml), ml_text(later.lesion_ml), change.lesion_ml)} ml"
    ratio = _went(
        percent_text(earlier.ratio_percent),
        percent_text(later.ratio_percent),
        later.ratio_percent - earlier.ratio_percent,
    )
    share = _share(earlier.lesion_ml, change.lesion_ml)
    said = [f"{_since(change.days)}the volume marked as lesion {volume}{share}, its ratio to the lungs {ratio} %."]
    if change.is_other_breath:
        much = f"{abs(change.lung_percent):.0f} % {'larger' if change.lung_percent > 0 else 'smaller'}"
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
        return f"The scan to compare with is {-days} days younger than this one: from there "
    return "On the same day " if days == 0 else "Within 1 day " if days == 1 else f"Within {days} days "


def _went(before: str, after: str, grown: float) -> str:
    if before == after:
        return f"stayed at {after}"
    return f"{'rose' if grown > 0 else 'fell'} from {before} to {after}"


def _share(before: float, grown: float) -> str:
    """The change as a share of what was there; none where there was too little to be a share of."""
    if before < 1 or not round(100 * grown / before):
        return ""
    sign = "+" if grown > 0 else MINUS
    return f" ({sign}{abs(100 * grown / before):.0f} %)"
