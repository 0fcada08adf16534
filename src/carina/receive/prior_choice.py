"""Which of the series that a peer lists is the patient's earlier chest CT, by the series rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carina.dicom.found import Found
from carina.dicom.merit import Ranking, Region, region
from carina.dicom.rules import Rules, broken_rules
from carina.receive.fetch import FoundSeries
from carina.receive.patient import ScanOf, is_earlier, study_moment


def earlier_chests(
    listed: Sequence[FoundSeries], scan: ScanOf, study_uid: str, rules: Rules, studies: int
) -> tuple[FoundSeries, ...]:
    """The best chest series of each earlier study of the patient, the latest first, of at most so many studies.

    A study is the patient's if it has the ID, and no other issuer than the scan; one without a date is not earlier.
    """
    of_study: dict[str, list[FoundSeries]] = {}
    for series in listed:
        if series.study_uid != study_uid and _is_earlier(series, scan):
            of_study.setdefault(series.study_uid, []).append(series)
    best = [one for every in of_study.values() if (one := _chest(every, rules)) is not None]
    return tuple(sorted(best, key=_moment, reverse=True)[:studies])


def _moment(series: FoundSeries) -> str:
    return study_moment(series.study_date, series.study_time)


def _is_earlier(series: FoundSeries, scan: ScanOf) -> bool:
    is_same = series.patient_id.strip() == scan.patient_id and series.issuer.strip() in ("", scan.issuer)
    return is_same and is_earlier(_moment(series), scan.studied)


def _chest(listed: Sequence[FoundSeries], rules: Rules) -> FoundSeries | None:
    """The best of a study's series; None where all are broken or lie elsewhere.

    How many slices an object holds is not told, so that one of few instances comes last and not never.
    """
    judged = {series: _judged(series, rules) for series in listed}
    fit = {series: one for series, one in judged.items() if not broken_rules(one, rules)}
    ranking = Ranking.of(list(fit.values()), rules)
    best = max(fit, key=lambda one: (_has_enough(one, rules), ranking.merits(fit[one]), one.series_uid), default=None)
    return best if best is not None and region(fit[best], rules.prefer)[0] is not Region.ELSEWHERE else None


def _has_enough(series: FoundSeries, rules: Rules) -> bool:
    return series.instances is None or series.instances >= rules.min_slices


def _judged(series: FoundSeries, rules: Rules) -> Found:
    return Found(
        path=Path(),
        uid=series.series_uid,
        modality="CT",
        description=series.description,
        body_part=series.body_part,
        slices=max(series.instances or 0, rules.min_slices),
    )
